//! Light and dark, narrow and wide, by keyboard and by voice.

use wanproxy_tests::browser::Spoken;

use super::*;

/// Contrast of text with what it stands on, for everything that holds text: those below what WCAG 2 asks for at level AA.
const FAINT: &str = r"
const channel = (value) => { const part = value / 255; return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4; };
const parse = (color) => { const parts = color.match(/[\d.]+/g).map(Number); return [parts[0], parts[1], parts[2], parts[3] ?? 1]; };
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const ground = (element) => { for (; element; element = element.parentElement) { const color = parse(getComputedStyle(element).backgroundColor); if (color[3] > 0.99) return color; } return [255, 255, 255, 1]; };
const faint = [];
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || !element.checkVisibility() || element.closest('.hidden, .skip')) continue;
  const style = getComputedStyle(element);
  const [one, other] = [light(parse(element.namespaceURI.endsWith('svg') ? style.fill : style.color)), light(ground(element))];
  const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  const isLarge = parseFloat(style.fontSize) >= 24;
  if (contrast < (isLarge ? 3 : 4.5)) faint.push(element.tagName + ' ' + element.textContent.trim().slice(0, 30) + ' ' + contrast.toFixed(2));
}
return faint;";

#[tokio::test(flavor = "multi_thread")]
async fn it_is_readable_in_light_and_dark_on_a_phone_and_on_a_desk() {
    let Some((browser, _one)) = browser("how the dashboard looks").await else {
        return;
    };
    let (pair, _origin) = start("").await;
    let traffic = Traffic::start(pair.client().address("files").unwrap());
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await.unwrap();
        for (width, height) in [(360, 740), (768, 1024), (1280, 900), (1920, 1080)] {
            browser.resize(width, height, 1.0).await.unwrap();
            open(&browser, pair.client()).await;
            // Of one moment: what comes meanwhile may bring a scroll bar.
            let widths = "const page = document.documentElement; return `${page.scrollWidth} ${page.clientWidth}`";
            let widths = browser.text(widths).await.unwrap();
            let (content, window) = widths.split_once(' ').unwrap();
            assert_eq!(content, window, "{scheme}, {width}");
            let faint = browser.script(FAINT).await.unwrap();
            assert_eq!(
                faint.as_array().map(Vec::len),
                Some(0),
                "{scheme}, {width}: {faint}"
            );
            assert!(browser.picture().await.unwrap().len() > 10_000);
        }
        grounds.push(
            browser
                .text("return getComputedStyle(document.body).backgroundColor")
                .await
                .unwrap(),
        );
    }
    assert_ne!(grounds[0], grounds[1]);
    traffic.stop().await;
    console_is_clean(&browser).await;
}

const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_reached_by_keyboard_and_has_a_name() {
    let Some((browser, _one)) = browser("the dashboard by keyboard and by voice").await else {
        return;
    };
    let (pair, _origin) = start("").await;
    fetch(
        pair.client().address("files").unwrap(),
        &Request::get("/text"),
        |_| {},
    )
    .await
    .unwrap();
    open(&browser, pair.client()).await;
    // Keyboard: what has the focus is named and visibly so.
    let mut reached = Vec::new();
    for _ in 0..30 {
        browser.press(TAB).await.unwrap();
        let focused = browser
            .text("const e = document.activeElement; const outline = getComputedStyle(e); return e === document.body ? '' : `${e.textContent.trim().slice(0, 20) || e.id} ${outline.outlineStyle !== 'none' || e.matches('.skip') ? 'visible' : 'invisible'}`")
            .await
            .unwrap();
        if focused.is_empty() || reached.contains(&focused) {
            break;
        }
        assert!(focused.ends_with(" visible"), "{focused}");
        reached.push(focused);
    }
    for wanted in [
        "Skip to the figures",
        "The same as a table",
        "Service",
        "LAN",
        "Metrics",
    ] {
        assert!(
            reached.iter().any(|name| name.starts_with(wanted)),
            "{wanted}: {reached:?}"
        );
    }
    // Sorting by keyboard says so.
    browser
        .script("document.querySelector('#services thead button').focus()")
        .await
        .unwrap();
    browser.press(ENTER).await.unwrap();
    let sorted = browser
        .text("return document.querySelector('#services thead th').ariaSort")
        .await
        .unwrap();
    assert_eq!(sorted, "ascending");
    // The chart's figures as a table.
    browser
        .script("document.querySelector('.as-table summary').focus()")
        .await
        .unwrap();
    browser.press(ENTER).await.unwrap();
    eventually("the table has rows", async || {
        let rows = browser
            .script("return document.querySelectorAll('#minutes tbody tr').length")
            .await
            .unwrap();
        if rows.as_u64() > Some(0) {
            Ok(())
        } else {
            Err(rows)
        }
    })
    .await;

    let spoken = async |selector: &str| browser.spoken(selector).await.unwrap();
    let is = |spoken: &[Spoken], role: &str| {
        spoken
            .iter()
            .all(|spoken| spoken.role == role && !spoken.label.is_empty())
    };
    let chart = spoken("#chart").await;
    assert!(
        matches!(&*chart[0].role, "img" | "image") && chart[0].label.contains("LAN: now"),
        "{chart:?}"
    );
    for (selector, role) in [
        ("button:not([hidden])", "button"),
        ("[role=meter]", "meter"),
        ("h1, h2, h3", "heading"),
        ("#services", "table"),
        ("#services tbody th", "rowheader"),
        ("#services thead th", "columnheader"),
        ("a", "link"),
    ] {
        let found = spoken(selector).await;
        assert!(
            !found.is_empty() && is(&found, role),
            "{selector}: {found:?}"
        );
    }
    for (selector, role) in [
        ("body > header", "banner"),
        ("main", "main"),
        ("footer", "contentinfo"),
    ] {
        let found = spoken(selector).await;
        assert_eq!(
            found.iter().map(|found| &*found.role).collect::<Vec<_>>(),
            [role],
            "{selector}"
        );
    }
    assert_eq!(spoken("#announce").await[0].role, "status");
    // The whole tree: whatever can be used has a name, and what is only decoration is not there.
    browser
        .devtools("Accessibility.enable", &serde_json::json!({}))
        .await
        .unwrap();
    let tree = browser
        .devtools("Accessibility.getFullAXTree", &serde_json::json!({}))
        .await
        .unwrap();
    let mut roles = Vec::new();
    for node in tree["nodes"].as_array().unwrap() {
        if node["ignored"].as_bool() == Some(true) {
            continue;
        }
        let role = node["role"]["value"].as_str().unwrap_or_default();
        let name = node["name"]["value"].as_str().unwrap_or_default();
        if matches!(
            role,
            "button"
                | "link"
                | "meter"
                | "region"
                | "table"
                | "textbox"
                | "searchbox"
                | "image"
                | "img"
        ) {
            assert!(!name.is_empty(), "a {role} without a name: {node}");
        }
        roles.push(role.to_owned());
    }
    for wanted in ["heading", "table", "meter", "region", "list", "listitem"] {
        assert!(
            roles.iter().any(|role| role == wanted),
            "no {wanted} in {roles:?}"
        );
    }
    console_is_clean(&browser).await;
}
