//! Who gets in.

use super::*;

const TOKEN: &str = "a-token-of-the-dashboard";

const ENTER: char = '\u{e007}';

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_a_browser_logs_in_by_form_or_by_link() {
    use std::os::unix::fs::PermissionsExt;
    let Some((browser, _one)) = browser("logging in at the dashboard").await else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("admin.token");
    std::fs::write(&file, TOKEN).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (pair, _origin) = start("").await;
    // The pair itself asks without a token, so this is another client.
    let extra = format!("[admin]\ntoken_file = \"{}\"\n", file.display());
    let home = pair.join("branch-2").await.unwrap();
    let edge = pair.start_joined(&home, &extra).await.unwrap();
    // Fails between one page and the next.
    let path = async || {
        browser
            .text("return location.pathname + location.hash")
            .await
    };

    browser.open(&address_of(&edge)).await.unwrap();
    assert_eq!(path().await.unwrap(), "/login");
    let type_in = async |text: &str| {
        browser
            .script(
                "const field = document.getElementById('token'); field.value = ''; field.focus()",
            )
            .await
            .unwrap();
        for key in text.chars() {
            browser.press(key).await.unwrap();
        }
        browser.press(ENTER).await.unwrap();
    };
    type_in("not-the-token-at-all").await;
    eventually("the wrong token is told", async || {
        match browser.text("return document.body.innerText").await {
            Ok(text) if text.contains("That is not the token of this edge.") => Ok(()),
            other => Err(other),
        }
    })
    .await;
    // The browser itself reports the answer's status.
    for line in browser.console().await.unwrap() {
        assert!(line.message.contains("401"), "{line:?}");
    }
    type_in(TOKEN).await;
    eventually("the dashboard is there", async || match path().await {
        Ok(path) if path == "/" => Ok(()),
        other => Err(other),
    })
    .await;
    is_live(&browser).await;
    let cookie = browser.text("return document.cookie").await.unwrap();
    assert_eq!(cookie, "", "a script can read the cookie");
    console_is_clean(&browser).await;

    // A link with the token behind the # does it by itself, and the address keeps nothing of it.
    browser
        .devtools("Network.clearBrowserCookies", &serde_json::json!({}))
        .await
        .unwrap();
    browser
        .open(&format!("{}login#{TOKEN}", address_of(&edge)))
        .await
        .unwrap();
    eventually("the link logs in", async || match path().await {
        Ok(path) if path == "/" => Ok(()),
        other => Err(other),
    })
    .await;
    is_live(&browser).await;
    console_is_clean(&browser).await;
}
