//! The commands of the authority: `init`, `invite`, `list`, `renew`, `revoke`.

use std::fmt::Write as _;
use std::path::Path;
use std::time::SystemTime;

use edge::cli::{Failure, print};
use edge::identity::{self, Authority, EdgeName, date};

use crate::cli::{DirArgs, InitArgs, InviteArgs, InviteFileArgs, RenewArgs, RevokeArgs};

/// `init`.
///
/// # Errors
/// The directory is in use or cannot be written; it is left as it was.
pub fn init(args: &InitArgs) -> Result<(), Failure> {
    identity::init(&args.dir, &args.address, &args.allow, SystemTime::now())?;
    let dir = args.dir.display();
    let mut text = format!(
        "Made an authority and a server's identity in {dir}. Keep a copy of ca.key in a safe place.\n"
    );
    if args.allow.is_empty() {
        text.push_str(
            "Clients may reach nothing yet: add allow rules to [[client]] in server.toml.\n",
        );
    }
    let config = args.dir.join("server.toml");
    print(&format!(
        "{text}Next: wanproxy-server check --config {}, then wanproxy-server invite NAME --dir {dir}\n",
        config.display()
    ))
}

/// `invite`.
///
/// # Errors
/// There is no authority, the file exists, or too many invites are open.
pub fn invite(args: &InviteArgs) -> Result<(), Failure> {
    write_invite(&args.name, &args.dir, &args.file, false)
}

/// `list`.
///
/// # Errors
/// There is no authority, or its files are damaged.
pub fn list(args: &DirArgs) -> Result<(), Failure> {
    const SECONDS_A_DAY: u64 = 24 * 3_600;
    let now = SystemTime::now();
    let rows = Authority::open_directory(&args.dir)?.list(now)?;
    let width = rows
        .iter()
        .map(|row| row.name.as_str().len())
        .max()
        .unwrap_or_default()
        .max("NAME".len());
    let mut text = format!(
        "{:<width$}  {:<8} {:<21} {:>9}  SERIAL\n",
        "NAME", "STATE", "EXPIRES", "DAYS LEFT"
    );
    for row in rows {
        let left = row
            .expires
            .duration_since(now)
            .map_or(0, |left| left.as_secs() / SECONDS_A_DAY);
        // Writing to a String cannot fail.
        let _ok = writeln!(
            text,
            "{:<width$}  {:<8} {:<21} {left:>9}  {}",
            row.name.as_str(),
            row.state.as_str(),
            date(row.expires),
            row.serial
        );
    }
    print(&text)
}

/// `renew`.
///
/// # Errors
/// There is no authority, the name is unknown, or the file exists.
pub fn renew(args: &RenewArgs) -> Result<(), Failure> {
    if args.name != EdgeName::server() {
        return write_invite(&args.name, &args.dir, &args.file, true);
    }
    if args.file.out.is_some() {
        return Err(Failure::Usage(
            "the server's certificate is renewed in its directory; leave --out away".to_owned(),
        ));
    }
    let expires = Authority::open_directory(&args.dir.dir)?.renew_server(SystemTime::now())?;
    print(&format!(
        "The server's certificate is now valid until {}. A running wanproxy-server takes it over within seconds.\n",
        date(expires)
    ))
}

/// `revoke`.
///
/// # Errors
/// There is no authority, or the name is unknown or the server's.
pub fn revoke(args: &RevokeArgs) -> Result<(), Failure> {
    let count = Authority::open_directory(&args.dir.dir)?.revoke(&args.name, SystemTime::now())?;
    let name = &args.name;
    print(&match count {
        0 => format!(
            "\"{name}\" has nothing that could be revoked: all is expired or revoked already.\n"
        ),
        _ => format!(
            "Revoked \"{name}\" ({count} certificates and invites). A running wanproxy-server takes it over within seconds.\n"
        ),
    })
}

fn write_invite(
    name: &EdgeName,
    dir: &DirArgs,
    file: &InviteFileArgs,
    renews: bool,
) -> Result<(), Failure> {
    let authority = Authority::open_directory(&dir.dir)?;
    let made = authority.invite(
        name,
        file.valid,
        renews,
        file.out.as_deref(),
        SystemTime::now(),
    )?;
    match &file.out {
        None => print(&made.text),
        Some(out) => {
            let shared = if made.was_active && !renews {
                format!("Note: \"{name}\" is active; whoever joins shares its identity.\n")
            } else {
                String::new()
            };
            print(&format!(
                "{shared}{}",
                next_step(name, out, &date(made.expires))
            ))
        }
    }
}

fn next_step(name: &EdgeName, out: &Path, expires: &str) -> String {
    let out = out.display();
    format!(
        "Wrote an invite for \"{name}\" to {out}. It works once, until {expires}, and holds a private key.\n\
         Next: carry it to the client, and there run: wanproxy-client join {out} --dir /etc/wanproxy\n"
    )
}
