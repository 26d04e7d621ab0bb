//! The ids by which machines that are there already are imported.

use tfplugin::{Attr, Diagnostic, Diagnostics};

use super::block::SshBlock;

/// Reads `[user@]host[:port]`, with IPv6 addresses in brackets.
pub(crate) fn parse_id(id: &str) -> Result<SshBlock, Diagnostics> {
    let wrong = || {
        Diagnostics::from(Diagnostic::error("This is not the id of a machine").detail(format!(
            "Found \"{id}\", expected [user@]host[:port], e.g. `root@203.0.113.7` or `[2001:db8::7]:2222`; \
             a configuration, `jsonencode({{ name = …, ssh = {{ host = … }} }})`; or the id of an instance \
             on EC2, `eu-west-1:i-0123456789abcdef0`."
        )))
    };
    let (user, rest) = id.split_once('@').map_or((None, id), |(user, rest)| (Some(user), rest));
    let (host, port) = if let Some(rest) = rest.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
        (host, port.strip_prefix(':'))
    } else {
        match rest.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') => (host, Some(port)),
            _ => (rest, None),
        }
    };
    let port = port.map(|port| port.parse::<u16>().map_err(|_| wrong())).transpose()?;
    if host.is_empty() || user.is_some_and(str::is_empty) || host.contains(char::is_whitespace) {
        return Err(wrong());
    }
    Ok(SshBlock {
        host: Attr::Known(host.to_owned()),
        port: Attr::from(port),
        user: Attr::from(user.map(str::to_owned)),
        ..SshBlock::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_people_write_them() {
        let read = |id: &str| {
            parse_id(id).map(|b| (b.user.into_known(), b.host.into_known(), b.port.into_known())).ok()
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("web"), Some((None, some("web"), None)));
        assert_eq!(read("root@10.0.0.1:2222"), Some((some("root"), some("10.0.0.1"), Some(2222))));
        assert_eq!(read("[2001:db8::7]:22"), Some((None, some("2001:db8::7"), Some(22))));
        assert_eq!(read("2001:db8::7"), Some((None, some("2001:db8::7"), None)));
        for bad in ["", "@web", "web:ssh", "root@", "a b"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
