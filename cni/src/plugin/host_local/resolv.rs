//! The resolver settings of a `resolv.conf(5)`, which the configuration may name.
use std::fs;
use std::path::Path;

use super::super::Failure;
use crate::Dns;

/// Reads the file; lines that it does not know are passed over, as the resolver does.
pub(super) fn read(path: &Path) -> Result<Dns, Failure> {
    let text = fs::read_to_string(path).map_err(|e| Failure::io("read", path, &e))?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let keyword = words.next().unwrap_or_default();
        let rest: Vec<String> = words.map(str::to_owned).collect();
        match keyword {
            "nameserver" => dns.nameservers.extend(rest.into_iter().take(1)),
            "domain" => dns.domain = rest.into_iter().next().unwrap_or_default(),
            "search" => dns.search.extend(rest),
            "options" => dns.options.extend(rest),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_comments_passed_over() {
        let dns = parse(
            "# nameserver 1.1.1.1\nnameserver 10.0.0.53\n  search a.example b.example\noptions ndots:5\n;x\ndomain c.example\n",
        );
        assert_eq!(dns.nameservers, ["10.0.0.53"]);
        assert_eq!(dns.search, ["a.example", "b.example"]);
        assert_eq!(
            (dns.options, dns.domain),
            (vec!["ndots:5".to_owned()], "c.example".to_owned())
        );
    }
}
