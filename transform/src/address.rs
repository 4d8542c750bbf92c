//! Client addresses in every form that records have them in.
//!
//! An address is exact when what was read says everything that the text said, so that the text need not be kept beside it.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
};

use crate::names::letters_digits_and;

/// An address in its usual spelling: IPv4 that was wrapped into IPv6 is IPv4, IPv6 is as short as RFC 5952 makes it.
#[derive(Clone, Copy)]
pub(crate) enum IpText<'a> {
    /// It was spelt like that.
    Same(&'a str),
    Respelt(Respelt),
}

/// The text of an address.
#[derive(Clone, Copy)]
pub(crate) struct Respelt {
    bytes: [u8; 45],
    length: u8,
}

/// Who called, as far as a text says it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address<'a> {
    pub(crate) host: Host<'a>,
    pub(crate) port: Option<u16>,
    /// Whether host and port say all that the text said.
    pub(crate) exact: bool,
}

/// The address without its port.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Host<'a> {
    Ip(IpText<'a>),
    Name(&'a str),
}

impl<'a> IpText<'a> {
    /// The address that `text` is.
    fn new(address: IpAddr, text: &'a str) -> Self {
        let mut respelt = Respelt { bytes: [0; 45], length: 0 };
        // The longest form of an address, `ffff:…:ffff`, has 39 bytes, so there is always room.
        let _ = write!(respelt, "{address}");
        if respelt.as_str() == text { Self::Same(text) } else { Self::Respelt(respelt) }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Same(text) => text,
            Self::Respelt(respelt) => respelt.as_str(),
        }
    }
}

impl Respelt {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl std::fmt::Write for Respelt {
    fn write_str(&mut self, piece: &str) -> std::fmt::Result {
        let start = usize::from(self.length);
        let room = self.bytes.get_mut(start..start + piece.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(piece.as_bytes());
        self.length += piece.len() as u8;
        Ok(())
    }
}

impl std::fmt::Debug for IpText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Host<'_> {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Ip(ip) => ip.as_str(),
            Self::Name(name) => name,
        }
    }
}

/// Reads `v4`, `v4:port`, `v6`, `[v6]:port`, `[…]` around anything, `::ffff:v4`, `host.name` and `host:port`. A bare IPv6
/// address is never cut at a colon.
pub(crate) fn parse_address(text: &str) -> Option<Address<'_>> {
    let trimmed = text.trim();
    let mut address = if let Some(rest) = trimmed.strip_prefix('[') {
        let (inner, port) = rest.split_once(']')?;
        let (host, plain) = parse_host(inner)?;
        let (port, exact_port) = match port.strip_prefix(':') {
            Some(port) => parse_port(port).map(|(port, exact)| (Some(port), exact))?,
            None if port.is_empty() => (None, false),
            None => return None,
        };
        let v6 = matches!(host, Host::Ip(ip) if ip.as_str().contains(':'));
        Address { host, port, exact: plain && exact_port && v6 }
    } else if let Some((host, exact)) = parse_host(trimmed) {
        Address { host, port: None, exact }
    } else {
        let (host, port) = trimmed.split_once(':')?;
        let (port, exact_port) = parse_port(port)?;
        let (host, exact) = match parse_host(host) {
            Some(found) => found,
            None if is_host_name(host) => (Host::Name(host), true),
            None => return None,
        };
        Address { host, port: Some(port), exact: exact && exact_port }
    };
    address.exact &= trimmed.len() == text.len();
    Some(address)
}

/// An address or name without a port, and whether it is spelt in the usual way. A word without a dot is taken for a name only
/// when it is `localhost`: texts such as `Unknown` stand in these fields too.
fn parse_host(text: &str) -> Option<(Host<'_>, bool)> {
    if is_plain_v4(text) {
        return Some((Host::Ip(IpText::Same(text)), true));
    }
    let unzoned = text.split_once('%').map_or(text, |(address, _)| address);
    if let Ok(ip) = unzoned.parse::<IpAddr>() {
        let ip = match ip {
            IpAddr::V6(v6) => unwrap_v4(v6),
            v4 @ IpAddr::V4(_) => v4,
        };
        let ip = IpText::new(ip, text);
        return Some((Host::Ip(ip), matches!(ip, IpText::Same(_))));
    }
    let last_label = text.rsplit_once('.').map(|(_, last)| last);
    let dotted = last_label.is_some_and(|last| last.bytes().any(|b| b.is_ascii_alphabetic()));
    let named = (dotted || text.eq_ignore_ascii_case("localhost")) && is_host_name(text);
    named.then_some((Host::Name(text), true))
}

/// Whether a text is an IPv4 address as it is usually spelt, which nearly all are: four numbers without leading zeros.
fn is_plain_v4(text: &str) -> bool {
    let (mut dots, mut digits, mut number) = (0, 0, 0u32);
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' if digits == 0 || number > 0 => {
                digits += 1;
                number = number * 10 + u32::from(byte - b'0');
                if number > 255 {
                    return false;
                }
            }
            b'.' if digits > 0 => (dots, digits, number) = (dots + 1, 0, 0),
            _ => return false,
        }
    }
    dots == 3 && digits > 0
}

fn unwrap_v4(v6: Ipv6Addr) -> IpAddr {
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

/// Letters, digits, hyphens, underscores and dots, with no label empty.
pub(crate) fn is_host_name(text: &str) -> bool {
    let mut before = b'.';
    text.len() <= 253
        && text.bytes().all(|byte| {
            let good = HOST[usize::from(byte)] && (byte != b'.' || before != b'.');
            before = byte;
            good
        })
        && before != b'.'
}

static HOST: [bool; 256] = letters_digits_and(b"-_.");

fn parse_port(text: &str) -> Option<(u16, bool)> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|_| digits)?;
    Some((port, text.len() == 1 || !text.starts_with('0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_that_was_seen_is_read() {
        for (text, host, port, exact) in [
            ("10.11.12.13", "10.11.12.13", None, true),
            ("10.11.12.13:12345", "10.11.12.13", Some(12345), true),
            ("[10.11.12.13]", "10.11.12.13", None, false),
            ("[10.11.12.13]:12345", "10.11.12.13", Some(12345), false),
            ("2001:db8::abcd", "2001:db8::abcd", None, true),
            ("2603:10a6:208:ac::15", "2603:10a6:208:ac::15", None, true),
            ("[2001:db8::abcd]", "2001:db8::abcd", None, false),
            ("[2001:db8::abcd]:12345", "2001:db8::abcd", Some(12345), true),
            ("2001:DB8:0::ABCD", "2001:db8::abcd", None, false),
            ("::ffff:10.11.12.13", "10.11.12.13", None, false),
            ("[::ffff:10.11.12.13]:12345", "10.11.12.13", Some(12345), false),
            ("::1", "::1", None, true),
            ("fe80::1%eth0", "fe80::1", None, false),
            ("localhost", "localhost", None, true),
            ("localhost:80", "localhost", Some(80), true),
            ("cool.client.local:12345", "cool.client.local", Some(12345), true),
            ("[cool.client.local]:12345", "cool.client.local", Some(12345), false),
            ("cool.client.local", "cool.client.local", None, true),
            (" 10.11.12.13 ", "10.11.12.13", None, false),
            ("10.11.12.13:080", "10.11.12.13", Some(80), false),
        ] {
            let address = parse_address(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((address.host.as_str(), address.port, address.exact), (host, port, exact), "{text}");
        }
        for text in [
            "",
            "sanitized",
            "Unknown",
            "NOTANIPV4 (10.9000.0.1)",
            "10.9000.0.1",
            "[]",
            "[::1",
            "1.2.3.4:",
            "1.2.3.4:x",
            "1.2.3.4:70000",
            "1.2.3.4:+5",
            "a..b:1",
            ":80",
            "2001:db8::abcd:12345:1:2:3:4:5:6",
            "[1.2.3.4]x",
        ] {
            assert!(parse_address(text).is_none(), "{text}");
        }
    }

    proptest! {
        /// Any address in any form is read as that address, and an exact reading can be turned back into the text.
        #[test]
        fn addresses_come_back(v4 in any::<[u8; 4]>(), v6 in any::<[u16; 8]>(), port in proptest::option::of(any::<u16>())) {
            let v4 = std::net::Ipv4Addr::from(v4);
            let v6 = Ipv6Addr::from(v6);
            let port_text = port.map_or(String::new(), |port| format!(":{port}"));
            for (text, host) in [
                (format!("{v4}{port_text}"), v4.to_string()),
                (format!("[{v4}]{port_text}"), v4.to_string()),
                (format!("[::ffff:{v4}]{port_text}"), v4.to_string()),
                (format!("[{v6}]{port_text}"), unwrap_v4(v6).to_string()),
            ] {
                let address = parse_address(&text).unwrap();
                prop_assert_eq!((address.host.as_str(), address.port), (host.as_str(), port));
                if address.exact {
                    let again = match (host.contains(':'), port) {
                        (true, Some(port)) => format!("[{host}]:{port}"),
                        (false, Some(port)) => format!("{host}:{port}"),
                        (_, None) => host,
                    };
                    prop_assert_eq!(again, text);
                }
            }
            let bare = v6.to_string();
            let address = parse_address(&bare).unwrap();
            prop_assert_eq!((address.host.as_str().parse::<IpAddr>().unwrap(), address.port), (unwrap_v4(v6), None));
        }

        #[test]
        fn any_text_is_survived(text in "[\\[\\]:.%0-9a-f ]{0,30}|\\PC{0,30}") {
            parse_address(&text);
        }

        #[test]
        fn a_plain_address_is_one_that_the_standard_library_writes_like_that(text in "[0-9.]{0,16}|[0-3]?[0-9]{1,2}(\\.[0-3]?[0-9]{1,2}){3}") {
            let canonical = text.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.to_string() == text);
            prop_assert_eq!(is_plain_v4(&text), canonical);
        }
    }
}
