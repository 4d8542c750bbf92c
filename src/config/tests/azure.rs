//! `type = "archive"` in Azure: how mailtrail logs in there.

use archive::{
    Target,
    store::target::{AzureCredentials, Network},
};

use super::{super::SinkKind, HEAD, parse};

const SINK: &str =
    "[sinks.vault]\ntype = \"archive\"\ntarget = \"azure\"\n[sinks.vault.azure]\ncontainer = \"o365\"\n";

/// The target of an archive in Azure with these lines.
fn azure(lines: &str) -> Result<archive::store::target::Azure, String> {
    let config = parse(&format!("{HEAD}{SINK}account = \"evidence\"\n{lines}")).map_err(|e| e.to_string())?;
    let sink = config.sinks.into_iter().find(|sink| sink.name.as_str() == "vault").unwrap();
    let SinkKind::Archive(archive) = sink.kind else { panic!("an archive") };
    match archive.target(Network::default(), &reqwest::Client::new())? {
        Target::Azure(azure) => Ok(azure),
        other => panic!("{other:?}"),
    }
}

const APPLICATION: &str = "tenant_id = \"41463f53-8812-40f4-890f-865bf6e35190\"\nclient_id = \"mailtrail\"\n";

#[test]
fn every_way_to_log_in_to_azure_can_be_configured() {
    for (lines, shown) in [
        ("account_key = { env = \"KEY\" }\n".to_owned(), "AccountKey"),
        ("sas = { file = \"/run/sas\" }\n".to_owned(), "Sas"),
        (format!("{APPLICATION}client_secret = {{ env = \"S\" }}\n"), "storage.azure.com/.default"),
        (format!("{APPLICATION}certificate = {{ file = \"/x.pem\" }}\n"), "storage.azure.com/.default"),
        (
            format!("{APPLICATION}workload_identity = {{ token_file = \"/t\" }}\n"),
            "storage.azure.com/.default",
        ),
        ("managed_identity = true\n".to_owned(), "storage.azure.com/.default"),
    ] {
        let target = azure(&lines).unwrap_or_else(|error| panic!("{lines}: {error}"));
        let credentials = format!("{:?}", target.credentials);
        assert!(credentials.contains(shown), "{lines}: {credentials}");
        assert_eq!(matches!(target.credentials, AzureCredentials::Entra(_)), shown.contains("default"));
    }
}

#[test]
fn each_cloud_has_its_blobs_elsewhere() {
    for (cloud, domain) in [
        ("commercial", "core.windows.net"),
        ("gcc", "core.windows.net"),
        ("gcc-high", "core.usgovcloudapi.net"),
        ("dod", "core.usgovcloudapi.net"),
        ("china", "core.chinacloudapi.cn"),
    ] {
        let target = azure(&format!("managed_identity = true\ncloud = \"{cloud}\"\n")).unwrap();
        let endpoint = target.endpoint.unwrap();
        assert_eq!(endpoint.as_str().trim_end_matches('/'), format!("https://evidence.blob.{domain}"));
    }
    let target = azure("managed_identity = true\nendpoint = \"https://blobs.example\"\n").unwrap();
    assert_eq!(target.endpoint.unwrap().as_str().trim_end_matches('/'), "https://blobs.example");
}

#[test]
fn what_is_wrong_with_a_login_to_azure_is_told() {
    for (lines, what) in [
        (
            "",
            "needs exactly one of account_key, sas, client_secret, certificate, managed_identity, workload_identity; it has none",
        ),
        ("sas = { env = \"S\" }\nmanaged_identity = true\n", "it has sas and managed_identity"),
        ("client_id = \"x\"\nclient_secret = { env = \"S\" }\n", "'sinks.vault.azure.tenant_id' is missing"),
        (
            "tenant_id = \"41463f53-8812-40f4-890f-865bf6e35190\"\nclient_secret = { env = \"S\" }\n",
            "'sinks.vault.azure.client_id' is missing",
        ),
        ("account_key = { env = \"K\" }\nclient_id = \"x\"\n", "has no meaning with account_key or sas"),
        ("managed_identity = true\nauthority = \"https://login.example\"\n", "needs cloud = \"custom\""),
        ("sas = { env = \"S\" }\ncloud = \"custom\"\n", "'sinks.vault.azure.endpoint' is missing"),
        (
            "managed_identity = true\ncloud = \"custom\"\nendpoint = \"https://blobs.example\"\n",
            "'sinks.vault.azure.authority' is missing",
        ),
        ("managed_identity = true\nendpoint = \"http://blobs.example\"\n", "would send secrets in the clear"),
        ("client_secret = \"very secret\"\n", "must not be written into the file"),
    ] {
        let error = azure(lines).expect_err(lines);
        assert!(error.contains(what), "{lines}: {error}");
        assert!(!error.contains("very secret"), "{error}");
    }
}
