//! The archive sink in Azure Blob Storage with tokens of Entra ID. Azurite takes them over TLS only, and looks at
//! nothing but their claims; so this is a service that wants the right one with every request.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use simulator::SimulatorConfig;

use super::{arrived_in, make_key};
use crate::support::{
    World, terminate,
    wire::{Reply, Request, Server},
};

/// What tokens have to be for.
const AUDIENCE: &str = "https://storage.azure.com";
/// The oldest version of the service that takes tokens ("Versioning for the Azure Storage services").
const OLDEST: &str = "2017-11-09";

/// A container.
#[derive(Default)]
struct Container {
    blobs: BTreeMap<String, Vec<u8>>,
    /// Every token that came.
    tokens: BTreeSet<String>,
    /// The ones that are not taken any more.
    revoked: BTreeSet<String>,
}

impl Container {
    /// Why a request is not from somebody it knows.
    fn stranger(&mut self, request: &Request) -> Option<&'static str> {
        let header = request.headers.get("authorization")?;
        let Some(token) = header.strip_prefix("Bearer ") else { return Some("no bearer token") };
        let claims = token.split('.').nth(1).and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok());
        let claims: Option<serde_json::Value> = claims.and_then(|part| serde_json::from_slice(&part).ok());
        if claims.is_none_or(|claims| claims["aud"] != AUDIENCE) {
            return Some("the token is for something else");
        }
        self.tokens.insert(token.to_owned());
        self.revoked.contains(token).then_some("the token was revoked")
    }

    fn answer(&mut self, request: &Request) -> Reply {
        if !request.headers.contains_key("authorization") {
            return said(401, "NoAuthenticationInformation", "");
        }
        if let Some(why) = self.stranger(request) {
            return said(401, "InvalidAuthenticationInfo", why);
        }
        if request.headers.get("x-ms-version").is_none_or(|version| version.as_str() < OLDEST) {
            return said(400, "InvalidHeaderValue", "x-ms-version");
        }
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let name = path.trim_start_matches("/account/o365").trim_start_matches('/').replace("%3D", "=");
        match request.method.as_str() {
            "GET" if query.contains("comp=list") => self.list(),
            "GET" | "HEAD" => match self.blobs.get(&name) {
                None => said(404, "BlobNotFound", ""),
                Some(blob) => Reply::Raw([head(200, blob.len()).as_bytes(), blob].concat()),
            },
            "PUT" if query.contains("comp=block") => said(201, "", ""),
            "PUT" if request.headers.get("if-none-match").is_none_or(|value| value != "*") => {
                said(400, "InvalidHeaderValue", "it could overwrite")
            }
            "PUT" if self.blobs.contains_key(&name) => said(409, "BlobAlreadyExists", ""),
            "PUT" => {
                self.blobs.insert(name, request.body.clone());
                said(201, "", "")
            }
            _ => said(405, "UnsupportedHttpVerb", ""),
        }
    }

    fn list(&self) -> Reply {
        let blob = |(name, bytes): (&String, &Vec<u8>)| {
            format!(
                "<Blob><Name>{name}</Name><Properties><Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT</Last-Modified>\
                 <Content-Length>{}</Content-Length><Content-Type>application/octet-stream</Content-Type><Etag>1</Etag></Properties></Blob>",
                bytes.len()
            )
        };
        let blobs: String = self.blobs.iter().map(blob).collect();
        let page = format!("<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker/></EnumerationResults>");
        Reply::Raw([head(200, page.len()).as_bytes(), page.as_bytes()].concat())
    }
}

fn head(status: u16, length: usize) -> String {
    format!(
        "HTTP/1.1 {status} Said\r\nconnection: close\r\ncontent-length: {length}\r\netag: \"1\"\r\n\
         last-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nx-ms-version: 2023-11-03\r\n\r\n"
    )
}

fn said(http: u16, code: &str, message: &str) -> Reply {
    let body = match code {
        "" => String::new(),
        code => format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>"),
    };
    Reply::Raw([head(http, body.len()), body].concat().into_bytes())
}

/// A tenant, a container, and an archive in it.
fn world() -> (World, Server, Arc<Mutex<Container>>) {
    let container = Arc::new(Mutex::new(Container::default()));
    let service = {
        let container = Arc::clone(&container);
        Server::start(None, None, move |request| container.lock().expect("no panic").answer(request))
    };
    let world = World::new(SimulatorConfig { blobs: 40, ..SimulatorConfig::default() });
    let (key, secret, authority) =
        (make_key(&world), world.path().join("app-secret"), world.simulator().base_url());
    let tenant = simulator::TenantConfig::default();
    fs::write(&secret, tenant.client_secret.as_deref().expect("a secret")).expect("a secret");
    let sink = format!(
        "[sinks.evidence]\ntype = \"archive\"\ntarget = \"azure\"\nsigning_key = {{ file = {key:?} }}\n\
         [sinks.evidence.azure]\naccount = \"account\"\ncontainer = \"o365\"\ncloud = \"custom\"\n\
         endpoint = \"http://{}/account\"\nauthority = \"{authority}\"\ntenant_id = \"{}\"\nclient_id = \"{}\"\n\
         client_secret = {{ file = {secret:?} }}\n",
        service.address, tenant.tenant_id, tenant.client_id
    );
    // So slow that there is something to be put for a few seconds.
    world.configure_sinks("", "requests_per_minute = 600\n", &sink);
    (world, service, container)
}

#[test]
fn azure_by_entra_has_every_record_in_one_object() {
    let (world, _service, container) = world();
    world.mailtrail(&["check"]).ends_with(0);
    assert!(container.lock().expect("no panic").blobs.is_empty(), "it leaves nothing behind");
    world.collect();
    let copy = world.path().join("copy");
    for (name, bytes) in &container.lock().expect("no panic").blobs {
        let file = copy.join(name);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, bytes).expect("a file");
    }
    arrived_in(&copy).is_exactly(&world.simulator().truth());
    world.mailtrail(&["archive", "verify", "--sink", "evidence", "--public-key", "archive.pub"]).ends_with(0);
}

#[test]
fn azure_by_entra_says_what_is_wrong_with_the_login() {
    let (world, _service, _) = world();
    fs::write(world.path().join("app-secret"), "another").expect("a secret");
    let refused = world.mailtrail(&["check"]).ends_with(1).text();
    assert!(refused.contains("sink evidence") && refused.contains("AADSTS7000215"), "{refused}");
    fs::remove_file(world.path().join("app-secret")).expect("a secret");
    let missing = world.mailtrail(&["check"]).ends_with(1).text();
    assert!(missing.contains("app-secret"), "{missing}");
}

#[test]
fn azure_by_entra_takes_a_new_token_when_the_old_one_is_revoked() {
    let (world, _service, container) = world();
    world.edit(|text| text.replace("target = \"azure\"\n", "target = \"azure\"\nobject_age = \"300ms\"\n"));
    let running = world.start(&["run"]);
    let put = || container.lock().expect("no panic").blobs.len();
    world.until("something is put", || put() > 0);
    let before = {
        let mut container = container.lock().expect("no panic");
        container.revoked = container.tokens.clone();
        container.tokens.len()
    };
    let has_everything = || {
        let container = container.lock().expect("no panic");
        let lines = |bytes: &Vec<u8>| {
            let plain = zstd::decode_all(&bytes[..]).expect("zstd");
            plain.iter().filter(|byte| **byte == b'\n').count() as u64
        };
        let objects = container.blobs.iter().filter(|(name, _)| name.ends_with(".zst"));
        objects.map(|(_, bytes)| lines(bytes)).sum::<u64>() == world.simulator().truth().count()
    };
    assert!(!has_everything(), "there is more to come");
    world.until("everything is put", has_everything);
    let tokens = container.lock().expect("no panic").tokens.len();
    assert_eq!(tokens, before + 1, "one more token came");
    terminate(&running);
    running.wait().ends_with(0);
}
