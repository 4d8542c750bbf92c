//! Which proxy a request goes through.
//!
//! The configured one; without one, what the environment names (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, and `NO_PROXY`
//! for exceptions). **This machine is always reached directly.** `http://` is allowed to it because nobody else hears what
//! is said there. Through a proxy, tokens would leave the machine in the clear, and the proxy would look for them on its own.

use reqwest::{ClientBuilder, NoProxy, Proxy};
use url::Url;

/// What every list of exceptions begins with. An address that means IPv4 within IPv6 is the same machine.
const THIS_MACHINE: &str = "localhost,127.0.0.0/8,::1,::ffff:127.0.0.0/104";

/// This machine, and what else is to be reached without a proxy; both in the form of `NO_PROXY`.
#[must_use]
pub fn exceptions(others: Option<&str>) -> String {
    others.map_or_else(|| THIS_MACHINE.to_owned(), |others| format!("{THIS_MACHINE},{others}"))
}

/// Sets the proxies of a client: the configured one with its exceptions, in the form of `NO_PROXY`, or those that the
/// environment names with its own.
///
/// # Errors
///
/// When the configured proxy's address cannot be used. One of the environment is passed over, with a warning.
pub fn set(
    builder: ClientBuilder,
    configured: Option<&Url>,
    others: Option<&str>,
) -> reqwest::Result<ClientBuilder> {
    let (proxies, others) = match configured {
        Some(url) => (vec![Proxy::all(url.clone())?], others.map(str::to_owned)),
        None => (of_environment(), variable(["NO_PROXY", "no_proxy"])),
    };
    let direct = NoProxy::from_string(&exceptions(others.as_deref()));
    // What the client would find in the environment by itself has no such exceptions.
    let builder = builder.no_proxy();
    Ok(proxies.into_iter().fold(builder, |builder, proxy| builder.proxy(proxy.no_proxy(direct.clone()))))
}

/// The proxies that the environment names; the first that fits a request is the one that it goes through.
fn of_environment() -> Vec<Proxy> {
    let named = |names: [&'static str; 2], make: fn(String) -> reqwest::Result<Proxy>| {
        let address = variable(names).filter(|address| !address.trim().is_empty())?;
        let proxy = make(address).ok();
        if proxy.is_none() {
            // The address may hold a password.
            tracing::warn!(
                variable = names[0],
                "the environment names a proxy whose address cannot be used: no proxy"
            );
        }
        proxy
    };
    [
        named(["HTTPS_PROXY", "https_proxy"], Proxy::https),
        named(["HTTP_PROXY", "http_proxy"], Proxy::http),
        named(["ALL_PROXY", "all_proxy"], Proxy::all),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn variable(names: [&str; 2]) -> Option<String> {
    names.iter().find_map(|name| std::env::var(name).ok())
}
