//! Where Microsoft's clouds are: the authority that gives tokens, the Management Activity API, and the scopes.
//!
//! Hosts: Office 365 Management Activity API reference, "Activity API operations"; authorities: Microsoft Entra
//! "National clouds". GCC is served by the commercial Entra. 21Vianet has no published endpoint of this API.

use std::{fmt, net::IpAddr, str::FromStr};

use url::{Host, Url};

/// A cloud of Microsoft, or another place that speaks its protocols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cloud {
    /// The worldwide cloud.
    Commercial,
    /// US government community cloud.
    Gcc,
    /// US government community cloud, high.
    GccHigh,
    /// US Department of Defense.
    Dod,
    /// Anything else: a simulated tenant, a gateway.
    Custom {
        /// The token endpoint is `{authority}/{tenant_id}/oauth2/v2.0/token`.
        authority: ServiceUrl,
        /// The feed is at `{api}/api/v1.0/{tenant_id}/activity/feed`.
        api: ServiceUrl,
    },
}

/// The configured cloud is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// No cloud has this name.
    #[error("unknown cloud `{name}`; use commercial, gcc, gcc-high, dod or custom")]
    Unknown {
        /// The name.
        name: String,
    },
    /// `custom` says nothing by itself.
    #[error("`cloud = \"custom\"` needs `{key}` as well")]
    Missing {
        /// What is missing.
        key: &'static str,
    },
    /// Only `custom` can have addresses of its own.
    #[error("`{key}` can be given only together with `cloud = \"custom\"`")]
    NotCustom {
        /// What is too much.
        key: &'static str,
    },
    /// An address is of no use.
    #[error("`{key}` cannot be used: {problem}")]
    Url {
        /// Which one.
        key: &'static str,
        /// What is wrong with it.
        #[source]
        problem: BadUrl,
    },
}

impl Cloud {
    /// The cloud that a configuration names by `cloud`, `authority` and `api`.
    ///
    /// # Errors
    ///
    /// When no cloud has that name, or the addresses do not fit to it.
    pub fn from_config(name: &str, authority: Option<&str>, api: Option<&str>) -> Result<Self, CloudError> {
        let given = [("authority", authority), ("api", api)];
        let plain = match name {
            "commercial" => Self::Commercial,
            "gcc" => Self::Gcc,
            "gcc-high" => Self::GccHigh,
            "dod" => Self::Dod,
            "custom" => {
                let [authority, api] = given.map(|(key, text)| {
                    let text = text.ok_or(CloudError::Missing { key })?;
                    text.parse().map_err(|problem| CloudError::Url { key, problem })
                });
                return Ok(Self::Custom { authority: authority?, api: api? });
            }
            _ => return Err(CloudError::Unknown { name: name.to_owned() }),
        };
        match given.into_iter().find(|(_, text)| text.is_some()) {
            Some((key, _)) => Err(CloudError::NotCustom { key }),
            None => Ok(plain),
        }
    }

    /// The name in the configuration.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Commercial => "commercial",
            Self::Gcc => "gcc",
            Self::GccHigh => "gcc-high",
            Self::Dod => "dod",
            Self::Custom { .. } => "custom",
        }
    }

    /// Where tokens come from.
    #[must_use]
    pub fn authority(&self) -> ServiceUrl {
        match self {
            Self::Commercial | Self::Gcc => ServiceUrl::known("https://login.microsoftonline.com"),
            Self::GccHigh | Self::Dod => ServiceUrl::known("https://login.microsoftonline.us"),
            Self::Custom { authority, .. } => authority.clone(),
        }
    }

    /// Where the Management Activity API is, without `/api/v1.0`.
    #[must_use]
    pub fn api(&self) -> ServiceUrl {
        match self {
            Self::Commercial => ServiceUrl::known("https://manage.office.com"),
            Self::Gcc => ServiceUrl::known("https://manage-gcc.office.com"),
            Self::GccHigh => ServiceUrl::known("https://manage.office365.us"),
            Self::Dod => ServiceUrl::known("https://manage.protection.apps.mil"),
            Self::Custom { api, .. } => api.clone(),
        }
    }

    /// What a token for the Management Activity API is asked for: the API's origin.
    #[must_use]
    pub fn api_scope(&self) -> Scope {
        Scope(format!("{}{}", self.api().origin(), Scope::SUFFIX))
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The address of a service: `https://` to anywhere, `http://` only to this very machine. It has no user, query or
/// fragment, and its path does not end with a slash.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServiceUrl(Url);

/// The text is not the address of a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// It is no URL at all.
    #[error("it is not a URL; expected the form https://host")]
    NotAUrl,
    /// It has another scheme than `https` or `http`.
    #[error("its scheme is `{scheme}`; use https")]
    Scheme {
        /// Its scheme.
        scheme: String,
    },
    /// Tokens and secrets would go over the network in the clear.
    #[error(
        "http:// to `{host}` would send secrets in the clear; use https, http is for 127.0.0.1, ::1 and localhost only"
    )]
    PlainHttp {
        /// Where to.
        host: String,
    },
    /// It has a user, a password, a query or a fragment.
    #[error("it must be scheme, host, port and path only, without user, query or fragment")]
    TooMuch,
}

impl ServiceUrl {
    fn known(text: &'static str) -> Self {
        text.parse().expect("the addresses of Microsoft's clouds are https addresses")
    }

    /// The address without its path, e.g. `https://manage.office.com`.
    #[must_use]
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// The address as text, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// The address.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.0
    }

    /// The address of something below this one.
    #[must_use]
    pub fn join(&self, segments: &[&str]) -> Url {
        let mut url = self.0.clone();
        url.path_segments_mut().expect("an address with a host has a path").pop_if_empty().extend(segments);
        url
    }
}

impl FromStr for ServiceUrl {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let mut url = Url::parse(text.trim()).map_err(|_| BadUrl::NotAUrl)?;
        let host = url.host().ok_or(BadUrl::NotAUrl)?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&host) => {}
            "http" => return Err(BadUrl::PlainHttp { host: host.to_string() }),
            scheme => return Err(BadUrl::Scheme { scheme: scheme.to_owned() }),
        }
        let user = !url.username().is_empty() || url.password().is_some();
        if user || url.query().is_some() || url.fragment().is_some() {
            return Err(BadUrl::TooMuch);
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self(url))
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => name.eq_ignore_ascii_case("localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => IpAddr::from(*address).to_canonical().is_loopback(),
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceUrl({})", self.as_str())
    }
}

/// What a token is asked for: a resource, followed by `/.default`. An application gets nothing else
/// (Microsoft identity platform, "Client credentials flow").
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope(String);

/// The text is no scope for an application.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no scope for an application; expected the form https://resource/.default")]
pub struct BadScope {
    /// What was given instead.
    pub text: String,
}

impl Scope {
    const SUFFIX: &'static str = "/.default";

    /// The scope that stands for everything that an application may do with a resource, e.g.
    /// `https://contoso.servicebus.windows.net`.
    ///
    /// # Errors
    ///
    /// When the resource is empty or has white space in it.
    pub fn of_resource(resource: &str) -> Result<Self, BadScope> {
        format!("{resource}{}", Self::SUFFIX).parse()
    }

    /// The scope as Entra wants it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The resource alone, as managed identities want it.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.0.strip_suffix(Self::SUFFIX).unwrap_or(&self.0)
    }
}

impl FromStr for Scope {
    type Err = BadScope;

    fn from_str(text: &str) -> Result<Self, BadScope> {
        let resource = text.strip_suffix(Self::SUFFIX).unwrap_or_default();
        if resource.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(BadScope { text: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cloud_has_its_authority_its_api_and_its_scope() {
        for (name, authority, api) in [
            ("commercial", "https://login.microsoftonline.com", "https://manage.office.com"),
            ("gcc", "https://login.microsoftonline.com", "https://manage-gcc.office.com"),
            ("gcc-high", "https://login.microsoftonline.us", "https://manage.office365.us"),
            ("dod", "https://login.microsoftonline.us", "https://manage.protection.apps.mil"),
        ] {
            let cloud = Cloud::from_config(name, None, None).unwrap();
            assert_eq!(cloud.to_string(), name);
            assert_eq!(cloud.authority().as_str(), authority);
            assert_eq!(cloud.api().as_str(), api);
            assert_eq!(cloud.api_scope().as_str(), format!("{api}/.default"));
            assert_eq!(cloud.api_scope().resource(), api);
        }
    }

    #[test]
    fn a_custom_cloud_asks_for_its_apis_origin() {
        let cloud = Cloud::from_config(
            "custom",
            Some("http://127.0.0.1:9400/login/"),
            Some("http://[::1]:9401/base/"),
        )
        .unwrap();
        assert_eq!(cloud.authority().as_str(), "http://127.0.0.1:9400/login");
        assert_eq!(cloud.authority().join(&["t", "x"]).as_str(), "http://127.0.0.1:9400/login/t/x");
        assert_eq!(cloud.api().to_string(), "http://[::1]:9401/base");
        assert_eq!(cloud.api_scope().as_str(), "http://[::1]:9401/.default");
    }

    #[test]
    fn a_cloud_and_its_addresses_must_fit() {
        assert_eq!(
            Cloud::from_config("china", None, None),
            Err(CloudError::Unknown { name: "china".to_owned() })
        );
        assert_eq!(Cloud::from_config("custom", None, None), Err(CloudError::Missing { key: "authority" }));
        assert_eq!(
            Cloud::from_config("custom", Some("https://a.b"), None),
            Err(CloudError::Missing { key: "api" })
        );
        assert_eq!(
            Cloud::from_config("gcc", None, Some("https://a.b")),
            Err(CloudError::NotCustom { key: "api" })
        );
        assert_eq!(
            Cloud::from_config("custom", Some("http://a.b"), Some("https://a.b")),
            Err(CloudError::Url { key: "authority", problem: BadUrl::PlainHttp { host: "a.b".to_owned() } })
        );
    }

    #[test]
    fn http_goes_to_this_machine_only() {
        for good in [
            "http://127.0.0.1:1",
            "http://127.200.3.4/x",
            "http://[::1]",
            "http://[::ffff:127.0.0.1]",
            "http://localhost:80",
            "http://LOCALHOST",
            "https://example.com",
        ] {
            assert!(good.parse::<ServiceUrl>().is_ok(), "{good}");
        }
        for bad in [
            "http://example.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://10.0.0.1",
            "http://0.0.0.0",
            "http://[::2]",
            "http://128.0.0.1",
        ] {
            assert!(matches!(bad.parse::<ServiceUrl>(), Err(BadUrl::PlainHttp { .. })), "{bad}");
        }
        assert_eq!("ftp://a.b".parse::<ServiceUrl>(), Err(BadUrl::Scheme { scheme: "ftp".to_owned() }));
        for bad in ["", "manage.office.com", "https://", "/x"] {
            assert_eq!(bad.parse::<ServiceUrl>(), Err(BadUrl::NotAUrl), "{bad}");
        }
        for bad in ["https://user@a.b", "https://:word@a.b", "https://a.b/?x", "https://a.b/#x"] {
            let problem = bad.parse::<ServiceUrl>().unwrap_err();
            assert_eq!(problem, BadUrl::TooMuch);
            assert!(!problem.to_string().contains("word"));
        }
    }

    #[test]
    fn an_application_asks_for_everything_of_one_resource() {
        let scope = Scope::of_resource("https://contoso.servicebus.windows.net").unwrap();
        assert_eq!(scope.as_str(), "https://contoso.servicebus.windows.net/.default");
        // A resource may end with a slash of its own, which is part of its name.
        assert_eq!("https://a.b//.default".parse::<Scope>().unwrap().resource(), "https://a.b/");
        for bad in ["", "/.default", "https://a.b", "https://a.b/User.Read", "x y/.default", "x\n/.default"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
    }
}
