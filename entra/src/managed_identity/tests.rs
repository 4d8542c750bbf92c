//! Each kind of host, simulated.

use std::fs;

use super::*;
use crate::testing::{Fake, Reply, SCOPE};

fn environment(
    pairs: &[(&str, &str)],
    client_id: Option<&str>,
) -> Result<ManagedIdentity, ManagedIdentityError> {
    ManagedIdentity::from_variables(client_id.map(|id| id.parse().unwrap()), |name| {
        pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned())
    })
}

async fn ask(identity: &ManagedIdentity) -> Result<AccessToken, TokenError> {
    identity.request(&SCOPE.parse().unwrap(), Duration::from_secs(10)).await
}

const TOKEN: &str = r#"{"access_token":"granted","expires_in":"86399","expires_on":"1","resource":"r","token_type":"Bearer"}"#;

#[tokio::test]
async fn a_virtual_machine_asks_its_metadata_service() {
    let fake = Fake::start(|_, _| Reply::ok(TOKEN)).await;
    for (client_id, query) in [
        (None, "api-version=2018-02-01&resource=https%3A%2F%2Fmanage.office.com"),
        (Some("me"), "api-version=2018-02-01&resource=https%3A%2F%2Fmanage.office.com&client_id=me"),
    ] {
        let identity =
            environment(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", fake.url().as_str())], client_id).unwrap();
        assert_eq!(identity.host_kind(), "virtual machine");
        let token = ask(&identity).await.unwrap();
        assert_eq!(token.expose(), "granted");
        assert_eq!(token.lifetime(), Duration::from_secs(86_399));
        let seen = fake.seen().pop().unwrap();
        assert_eq!(seen.method, "GET");
        assert_eq!(seen.target, format!("/metadata/identity/oauth2/token?{query}"));
        assert_eq!(seen.headers["metadata"], "true");
    }
}

#[test]
fn without_any_hint_it_is_a_virtual_machine() {
    let identity =
        environment(&[("IDENTITY_ENDPOINT", "http://127.0.0.1:1"), ("IMDS_ENDPOINT", "")], None).unwrap();
    let Host::VirtualMachine { endpoint } = identity.host else { panic!("{identity:?}") };
    assert_eq!(endpoint.as_str(), "http://169.254.169.254/metadata/identity/oauth2/token");
}

#[tokio::test]
async fn app_service_asks_with_its_header() {
    let end = chrono::Utc::now().timestamp() + 3600;
    let fake = Fake::start(move |_, _| {
        Reply::ok(&format!(r#"{{"access_token":"granted","expires_on":"{end}","token_type":"Bearer"}}"#))
    })
    .await;
    let endpoint = fake.url().join("/msi/token").unwrap();
    let pairs = [("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", "h34der-s3cret")];
    let identity = environment(&pairs, Some("me")).unwrap();
    let token = ask(&identity).await.unwrap();
    assert!(token.lifetime() > Duration::from_secs(3500));
    let seen = fake.seen().pop().unwrap();
    assert_eq!(
        seen.target,
        "/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fmanage.office.com&client_id=me"
    );
    assert_eq!(seen.headers["x-identity-header"], "h34der-s3cret");
    assert!(!format!("{identity:?}").contains("h34der"));
}

#[tokio::test]
async fn an_identity_that_does_not_exist_is_a_fault_of_the_configuration() {
    let fake = Fake::start(|_, _| {
        Reply::new(400, r#"{"error":"invalid_request","error_description":"Identity not found"}"#)
    })
    .await;
    let identity = environment(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", fake.url().as_str())], None).unwrap();
    let error = ask(&identity).await.unwrap_err();
    assert!(!error.retryable());
    assert!(error.advice().contains("Identity"), "{}", error.advice());
    assert_eq!(
        error.to_string(),
        "the managed identity endpoint refused a token: invalid_request (HTTP 400): Identity not found"
    );
}

fn arc(fake: &Fake, directory: &Path) -> ManagedIdentity {
    let endpoint = fake.url().join("/metadata/identity/oauth2/token").unwrap();
    let pairs = [("IDENTITY_ENDPOINT", endpoint.as_str()), ("IMDS_ENDPOINT", "http://127.0.0.1:1")];
    environment(&pairs, None).unwrap().with_arc_directory(directory.to_owned())
}

#[tokio::test]
async fn azure_arc_is_shown_the_file_that_it_names() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("challenge.key");
    for (content, quoted) in [("ch4llenge".to_owned(), false), ("x".repeat(ARC_KEY_MAX_BYTES), true)] {
        fs::write(&path, &content).unwrap();
        let realm = if quoted { format!("\"{}\"", path.display()) } else { path.display().to_string() };
        let fake = Fake::start(move |count, _| match count {
            0 => Reply::new(401, "").header("www-authenticate", &format!("Basic realm={realm}")),
            _ => Reply::ok(TOKEN),
        })
        .await;
        assert_eq!(ask(&arc(&fake, directory.path())).await.unwrap().expose(), "granted");
        let seen = fake.seen();
        assert_eq!(seen.len(), 2);
        for request in &seen {
            assert_eq!(
                request.target,
                "/metadata/identity/oauth2/token?api-version=2020-06-01&resource=https%3A%2F%2Fmanage.office.com"
            );
            assert_eq!(request.headers["metadata"], "true");
        }
        assert!(!seen[0].headers.contains_key(AUTHORIZATION));
        assert_eq!(seen[1].headers[AUTHORIZATION], format!("Basic {content}"));
    }
}

#[tokio::test]
async fn azure_arc_gets_no_other_file() {
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("tokens");
    fs::create_dir_all(directory.join("deeper")).unwrap();
    for name in ["outside.key", "tokens/other.txt", "tokens/.key", "tokens/deeper/x.key"] {
        fs::write(outer.path().join(name), "k3ep-this").unwrap();
    }
    let inside = directory.display();
    let beside = outer.path().display();
    for challenge in [
        format!("Basic realm={beside}/outside.key"),
        format!("Basic realm={inside}/../outside.key"),
        format!("Basic realm={inside}/deeper/../../outside.key"),
        format!("Basic realm={inside}/deeper/x.key"),
        format!("Basic realm={inside}/other.txt"),
        format!("Basic realm={inside}/.key"),
        format!("Basic realm={inside}/.."),
        format!("Basic realm={inside}x/a.key"),
        format!("Bearer realm={inside}/a.key"),
        "Basic realm=outside.key".to_owned(),
        "Basic realm=".to_owned(),
        "Basic".to_owned(),
    ] {
        let told = challenge.clone();
        let fake = Fake::start(move |_, _| Reply::new(401, "").header("www-authenticate", &told)).await;
        let error = ask(&arc(&fake, &directory)).await.unwrap_err();
        assert!(
            matches!(error, TokenError::ManagedIdentity(ManagedIdentityError::StrangeChallenge { .. })),
            "{challenge}: {error}"
        );
        assert!(!error.retryable());
        assert_eq!(fake.seen().len(), 1, "nothing was sent after {challenge}");
    }
}

#[tokio::test]
async fn azure_arc_gets_no_link_and_no_large_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("challenge.key");
    let told = format!("Basic realm={}", path.display());
    let fake = Fake::start(move |_, _| Reply::new(401, "").header("www-authenticate", &told)).await;
    let identity = arc(&fake, directory.path());

    let absent = ask(&identity).await.unwrap_err();
    assert!(absent.retryable(), "{absent}");

    fs::write(&path, "x".repeat(ARC_KEY_MAX_BYTES + 1)).unwrap();
    let large = ask(&identity).await.unwrap_err();
    assert!(matches!(large, TokenError::ManagedIdentity(ManagedIdentityError::LargeChallenge)), "{large}");

    let target = directory.path().join("target");
    fs::write(&target, "k3ep-this").unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    let link = ask(&identity).await.unwrap_err();
    assert!(
        matches!(link, TokenError::ManagedIdentity(ManagedIdentityError::UnreadableChallenge { .. })),
        "{link}"
    );
    assert!(fake.seen().iter().all(|request| !request.headers.contains_key(AUTHORIZATION)));
}

#[tokio::test]
async fn azure_arc_without_a_challenge_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    for (status, retryable) in [(200, false), (403, false), (503, true)] {
        let fake = Fake::start(move |_, _| Reply::new(status, TOKEN)).await;
        let error = ask(&arc(&fake, directory.path())).await.unwrap_err();
        assert!(
            matches!(error, TokenError::ManagedIdentity(ManagedIdentityError::NoChallenge { .. })),
            "{error}"
        );
        assert_eq!(error.retryable(), retryable);
    }
}

#[test]
fn what_cannot_be_is_said() {
    let arc =
        [("IDENTITY_ENDPOINT", "http://localhost:40342/x"), ("IMDS_ENDPOINT", "http://localhost:40342")];
    assert!(matches!(environment(&arc, Some("me")), Err(ManagedIdentityError::UserAssignedOnArc)));
    assert_eq!(environment(&arc, None).unwrap().host_kind(), "Azure Arc");
    let fabric = [
        ("IDENTITY_ENDPOINT", "https://localhost:2377"),
        ("IDENTITY_HEADER", "x"),
        ("IDENTITY_SERVER_THUMBPRINT", "AB"),
    ];
    assert!(matches!(environment(&fabric, None), Err(ManagedIdentityError::ServiceFabric)));
    for bad in ["not a url", "file:///etc/passwd", "data:x"] {
        let pairs = [("IDENTITY_ENDPOINT", bad), ("IDENTITY_HEADER", "x")];
        assert!(matches!(environment(&pairs, None), Err(ManagedIdentityError::BadEndpoint { .. })), "{bad}");
    }
    let header = [("IDENTITY_ENDPOINT", "http://127.0.0.1:1"), ("IDENTITY_HEADER", "s3cr\net")];
    let error = environment(&header, None).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cr"));
}
