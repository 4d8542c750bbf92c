//! One wrong configuration after the other, and exactly what is said about it.

use super::{HEAD, problems};

/// Lines to add to [`HEAD`], which has nine, and what is said about them.
const WRONG: &[(&str, &str)] = &[
    // Unknown keys, at every depth.
    ("rotate_byte = 1", "m.toml:10: unknown key 'sinks.archive.rotate_byte'; did you mean 'rotate_bytes'?"),
    ("Directory2 = 1", "m.toml:10: unknown key 'sinks.archive.Directory2'; did you mean 'directory'?"),
    ("[state2]", "m.toml:10: unknown key 'state2'; did you mean 'state'?"),
    (
        "[metrics]\nlisten = \"x\"",
        "m.toml:10: unknown key 'metrics'; the sections are state, network, http, tenants, sinks",
    ),
    (
        "[http]\nlisten = \"localhost:9184\"",
        "m.toml:11: 'http.listen' must be an address and a port, such as \"127.0.0.1:9184\"; \"localhost:9184\" is \
         none; a name does not do",
    ),
    (
        "[http]\nlisten = 9184",
        "m.toml:11: 'http.listen' must be an address and a port, such as \"127.0.0.1:9184\", not the number 9184",
    ),
    (
        "[sinks.archive.filter]\noperation = [\"Send\"]",
        "m.toml:11: unknown key 'sinks.archive.filter.operation'; did you mean 'operations'?",
    ),
    (
        "[network]\nzzz = 1",
        "m.toml:11: unknown key 'network.zzz'; the keys of network are ca_files, connect_timeout, no_proxy, proxy",
    ),
    (
        "\"a b\" = 1",
        "m.toml:10: unknown key 'sinks.archive.\"a b\"'; the keys of sinks.archive are burst, bytes_per_second, \
      captions, class_policy, compression, directory, events_per_second, exclude, file_name, filter, group, keep, mode, observables, \
      ocsf_version, raw_data, required, rotate_bytes, rotate_interval, start_from, tags, type, view",
    ),
    // Wrong kinds and values.
    (
        "rotate_bytes = true",
        "m.toml:10: 'sinks.archive.rotate_bytes' must be a size such as \"256MiB\", not true",
    ),
    (
        "rotate_bytes = \"10 G\"",
        "m.toml:10: 'sinks.archive.rotate_bytes' must be a size such as \"256MiB\"; \"10 G\" is none: `G` is not a unit of \
         size: use B, KiB, MiB, GiB, TiB (powers of 1024) or KB, MB, GB, TB (of 1000)",
    ),
    (
        "rotate_bytes = -1",
        "m.toml:10: 'sinks.archive.rotate_bytes' must be a size such as \"256MiB\"; -1 is out of range",
    ),
    (
        "rotate_interval = 60",
        "m.toml:10: 'sinks.archive.rotate_interval' must be a duration such as \"60s\" or \"1h30m\", not the number 60",
    ),
    (
        "rotate_interval = \"60\"",
        "m.toml:10: 'sinks.archive.rotate_interval' must be a duration such as \"60s\" or \"1h30m\"; \"60\" is none: `60` has \
         no unit: use ms, s, m, h or d, as in 60s",
    ),
    (
        "rotate_interval = \"0s\"",
        "m.toml:10: 'sinks.archive.rotate_interval' must be a duration such as \"60s\" or \"1h30m\"; it must be longer than \
         nothing",
    ),
    (
        "view = \"OCSF\"",
        "m.toml:10: 'sinks.archive.view' is \"OCSF\"; it must be one of \"ocsf\", \"raw\", \"ecs\", \"asim\", \"splunk\", \"officeactivity\"; did you mean \"ocsf\"?",
    ),
    (
        "view = 7",
        "m.toml:10: 'sinks.archive.view' must be one of \"ocsf\", \"raw\", \"ecs\", \"asim\", \"splunk\", \"officeactivity\", not the number 7",
    ),
    (
        "mode = \"rw\"",
        "m.toml:10: 'sinks.archive.mode' must be a file mode in octal digits and quotes, such as \"0640\"; `rw` is no mode for a file: use an octal number \
         from \"0600\" to \"0666\", such as \"0640\"",
    ),
    (
        "mode = 0o640",
        "m.toml:10: 'sinks.archive.mode' must be a file mode in octal digits and quotes, such as \"0640\", not the number \
         0o640",
    ),
    (
        "mode = \"0440\"",
        "m.toml:10: 'sinks.archive.mode' must be a file mode in octal digits and quotes, such as \"0640\"; `0440` is no mode for a file: use an octal number \
         from \"0600\" to \"0666\", such as \"0640\"",
    ),
    (
        "mode = \"0755\"",
        "m.toml:10: 'sinks.archive.mode' must be a file mode in octal digits and quotes, such as \"0640\"; `0755` is no mode for a file: use an octal number \
         from \"0600\" to \"0666\", such as \"0640\"",
    ),
    (
        "group = \"splunk\"",
        "m.toml:10: 'sinks.archive.group' has no use with mode = \"0600\", which keeps the group out; set mode = \"0640\"",
    ),
    (
        "file_name = \"../x\"",
        "m.toml:10: 'sinks.archive.file_name' must be a name for files, such as \"mailtrail\"; `../x` cannot name a file: \
         use 1 to 64 letters, digits, `.`, `_` or `-`, and begin with a letter or digit",
    ),
    (
        "keep = 0",
        "m.toml:10: 'sinks.archive.keep' must be a whole number from 1 to 4294967295; 0 is out of range",
    ),
    ("required = \"yes\"", "m.toml:10: 'sinks.archive.required' must be true or false, not the text \"yes\""),
    (
        "events_per_second = 0",
        "m.toml:10: 'sinks.archive.events_per_second' must be a whole number from 1 to 4294967295; 0 is out of range",
    ),
    (
        "events_per_second = 10\nburst = \"2s\"",
        "m.toml:11: 'sinks.archive.burst' must be from 100ms to 1s, not 2s",
    ),
    (
        "events_per_second = 10\nburst = \"99ms\"",
        "m.toml:11: 'sinks.archive.burst' must be from 100ms to 1s, not 99ms",
    ),
    (
        "burst = \"500ms\"",
        "m.toml:10: 'sinks.archive.burst' has no use without `events_per_second` or `bytes_per_second`",
    ),
    (
        "[sinks.archive.filter]\noperations = [\n  \"Send\",\n  7,\n]",
        "m.toml:13: 'sinks.archive.filter.operations[1]' must be a text in quotes, not the number 7",
    ),
    (
        "[sinks.archive.filter]\noperations = []",
        "m.toml:11: 'sinks.archive.filter.operations' is an empty list; leave the key out or name something",
    ),
    (
        "[sinks.archive.filter]\noperations = \"Send\"",
        "m.toml:11: 'sinks.archive.filter.operations' must be a list in [ ], each item a text in quotes, not the text \
         \"Send\"",
    ),
    (
        "[sinks.archive.filter]\ntenants = [\"contosso\"]",
        "m.toml:11: 'sinks.archive.filter.tenants' names \"contosso\", which is no tenant; did you mean \"contoso\"?",
    ),
    (
        "[sinks.archive.filter]\ncontent_types = [\"Audit.exchange\"]",
        "m.toml:11: 'sinks.archive.filter.content_types[0]' must be a content type such as \"Audit.Exchange\"; unknown \
         content type `Audit.exchange`; the API knows Audit.Exchange, Audit.AzureActiveDirectory, Audit.SharePoint, \
         Audit.General and DLP.All; did you mean \"Audit.Exchange\"?",
    ),
    (
        "[sinks.archive.exclude]",
        "m.toml:10: 'sinks.archive.exclude' is empty; name what is to be left out, or leave the section out",
    ),
    ("filter = 1", "m.toml:10: 'sinks.archive.filter' must be a section, not the number 1"),
    (
        "view = \"raw\"\ncaptions = false",
        "m.toml:11: 'sinks.archive.captions' has no meaning for view = \"raw\", which is the record's own bytes",
    ),
    (
        "view = \"ecs\"\ntags = false\nraw_data = \"full\"",
        "m.toml:12: 'sinks.archive.raw_data' has no meaning for view = \"ecs\"; only view = \"ocsf\" has it",
    ),
    // Sections that contradict each other.
    (
        "[tenants.again]\ntenant_id = \"41463F53-8812-40F4-890F-865BF6E35190\"\nmanaged_identity = true",
        "m.toml:11: 'tenants.again.tenant_id' is that of 'tenants.contoso' too; one organisation is one section",
    ),
    (
        "[sinks.second]\ntype = \"file\"\ndirectory = \"/var/log/./x/../mailtrail/\"",
        "m.toml:12: 'sinks.second.directory' is that of 'sinks.archive' too; give each sink a directory of its own",
    ),
    (
        "[sinks.second]\ntype = \"archive\"\ntarget = \"directory\"\ndirectory = \"/var/log/mailtrail\"",
        "m.toml:13: 'sinks.second.directory' is that of 'sinks.archive' too; give each sink a directory of its own",
    ),
    (
        "[sinks.second]\ntype = \"file\"\ndirectory = \"/var/lib/mailtrail/out\"",
        "m.toml:12: 'sinks.second.directory' is in the state directory, where only the ledger may be; choose another",
    ),
    (
        "[sinks.second]",
        "m.toml:10: 'sinks.second.type' is missing; say what it is: \"file\", \"splunk_hec\", \"kafka\", \"sentinel\", \"archive\"",
    ),
    (
        "[sinks.second]\ntype = \"files\"\nurl = \"x\"",
        "m.toml:11: 'sinks.second.type' is \"files\"; it must be one of \"file\", \"splunk_hec\", \"kafka\", \"sentinel\", \"archive\"; did you mean \"file\"?",
    ),
    (
        "[sinks.second]\ntype = \"file\"",
        "m.toml:10: 'sinks.second.directory' is missing; it is where the files go, such as \"/var/log/mailtrail\"",
    ),
    (
        "[sinks.\"a.b\"]\ntype = \"file\"\ndirectory = \"/x\"",
        "m.toml:10: 'sinks.\"a.b\"' cannot name a sink: use 1 to 64 letters, digits, `_` or `-`",
    ),
    ("[sinks]\nfile = 1", "m.toml:11: 'sinks.file' is not a section; begin one with [sinks.NAME]"),
    // Splunk.
    (
        "[sinks.soc]\ntype = \"splunk_hec\"\nurl = \"https://splunk:8088\"\ntoken.env = \"T\"",
        "m.toml:10: 'sinks.soc.acknowledgement' is missing; choose \"indexer\": delivered means that the indexer has it on disk \
         (the token needs indexer acknowledgement), or \"accept\": delivered means that the receiver took it, and its crash \
         can lose that. Splunk Cloud supports \"accept\" only",
    ),
    (
        "[sinks.soc]\ntype = \"splunk_hec\"\ntoken.env = \"T\"\nacknowledgement = \"accept\"",
        "m.toml:10: 'sinks.soc.url' is missing; it is the scheme, host and port of the HTTP Event Collector, such as \
         \"https://splunk.example.com:8088\"",
    ),
    (
        "[sinks.soc]\ntype = \"splunk_hec\"\nurl = \"https://splunk:8088\"\nacknowledgement = \"accept\"",
        "m.toml:10: 'sinks.soc.token' is missing; say where it is: { env = \"NAME\" } or { file = \"/path\" }",
    ),
    (
        "[sinks.soc]\ntype = \"splunk_hec\"\nurl = \"https://x:hunter2@splunk\"\ntoken.env = \"T\"\nacknowledgement = \"accept\"",
        "m.toml:12: 'sinks.soc.url' must be the URL of an HTTP Event Collector such as \"https://splunk.example.com:8088\"; it \
         must hold no user, password, query or fragment; the token has a key of its own",
    ),
    (
        "[sinks.soc]\ntype = \"splunk_hec\"\nurls = [\"https://a\", \"https://a/\"]\ntoken.env = \"T\"\nacknowledgement = \"accept\"",
        "m.toml:12: 'sinks.soc.urls' names https://a twice",
    ),
    (
        "[sinks.soc]\ntype = \"splunk_hec\"\nurl = \"https://a\"\nurls = [\"https://b\"]\ntoken.env = \"T\"\n\
         acknowledgement = \"accept\"",
        "m.toml:13: 'sinks.soc.urls' stands beside `url`; write all of them into `urls`",
    ),
    (
        "[sinks.soc]\ntype = \"splunk_hec\"\nurl = \"https://a\"\ntoken.env = \"T\"\nacknowledgement = \"accept\"\n\
         ack_timeout = \"1m\"",
        "m.toml:15: 'sinks.soc.ack_timeout' has no meaning with acknowledgement = \"accept\"",
    ),
    (
        "[sinks.soc]\ntype = \"splunk_hec\"\nurl = \"https://a\"\ntoken.env = \"T\"\nacknowledgement = \"indexer\"\n\
         index = \"o365-{tennant}\"",
        "m.toml:15: 'sinks.soc.index' must be a text, which may hold {tenant}, {tenant_id}, {content_type} and {content_id}; \
         in \"o365-{tennant}\" there is no {tennant}; there are {tenant}, {tenant_id}, {content_type} and {content_id}",
    ),
    (
        "[sinks.soc]\ntype = \"splunk_hec\"\nurl = \"https://a\"\ntoken.env = \"T\"\nacknowledgement = \"indexer\"\n\
         fields = { a = 1 }\nclient_key.env = \"K\"\ntimeout = \"1s\"",
        "m.toml:15: 'sinks.soc.fields.a' must be a text, which may hold {tenant}, {tenant_id}, {content_type} and {content_id}, \
         not the number 1\n\
         m.toml:16: 'sinks.soc.client_key' needs `client_certificate` beside it\n\
         m.toml:17: 'sinks.soc.timeout' must be at least 5s: what takes longer is sent again, and may arrive twice",
    ),
    (
        "[sinks.soc]\ntype = \"splunk_hec\"\nurl = \"https://a\"\ntoken = \"hunter2\"\nacknowledgement = \"indexer\"",
        "m.toml:13: 'sinks.soc.token' must not be written into the file; write { env = \"NAME\" } to take it from an environment \
         variable, or { file = \"/path\" } to read it from a file",
    ),
    // Tenants.
    (
        "[tenants.x]\ntenant_id = \"contoso.com\"\nmanaged_identity = true",
        "m.toml:11: 'tenants.x.tenant_id' must be the directory (tenant) id of the organisation; `contoso.com` is not a GUID \
         (expected the form 00000000-0000-0000-0000-000000000000)",
    ),
    (
        "[tenants.x]\nmanaged_identity = true",
        "m.toml:10: 'tenants.x.tenant_id' is missing; it is the directory (tenant) id, a GUID, as the Entra admin center \
         shows it",
    ),
    (
        "[tenants.x]\ntenant_id = \"11111111-8812-40f4-890f-865bf6e35190\"",
        "m.toml:10: 'tenants.x' needs exactly one of client_secret, certificate, managed_identity, workload_identity; it has \
         none",
    ),
    (
        "[tenants.x]\ntenant_id = \"11111111-8812-40f4-890f-865bf6e35190\"\nmanaged_identity = true\nclient_secret.env = \"X\"",
        "m.toml:10: 'tenants.x' needs exactly one of client_secret, certificate, managed_identity, workload_identity; it has \
         client_secret and managed_identity",
    ),
    (
        "[tenants.x]\ntenant_id = \"11111111-8812-40f4-890f-865bf6e35190\"\nclient_secret.env = \"X\"",
        "m.toml:10: 'tenants.x.client_id' is missing; it is the application (client) id, a GUID, as the Entra admin center \
         shows it",
    ),
    (
        "[tenants.x]\ntenant_id = \"11111111-8812-40f4-890f-865bf6e35190\"\nmanaged_identity = false",
        "m.toml:12: 'tenants.x.managed_identity' must be true, or be left out",
    ),
    (
        "[tenants.x]\ntenant_id = \"11111111-8812-40f4-890f-865bf6e35190\"\nmanaged_identity = true\ncloud = \"gcc-hihg\"",
        "m.toml:13: 'tenants.x.cloud' is \"gcc-hihg\"; it must be one of \"commercial\", \"gcc\", \"gcc-high\", \"dod\", \
         \"custom\"; did you mean \"gcc-high\"?",
    ),
    (
        "[tenants.x]\ntenant_id = \"11111111-8812-40f4-890f-865bf6e35190\"\nmanaged_identity = true\napi = \"https://x.example\"",
        "m.toml:13: 'tenants.x.api' needs cloud = \"custom\"; the other clouds have fixed hosts",
    ),
    (
        "[tenants.x]\ntenant_id = \"11111111-8812-40f4-890f-865bf6e35190\"\nmanaged_identity = true\ncloud = \"custom\"\n\
         api = \"https://x.example\"",
        "m.toml:10: 'tenants.x.authority' is missing; cloud = \"custom\" needs it; a URL such as \
         \"https://login.microsoftonline.com\"",
    ),
    (
        "[tenants.x]\ntenant_id = \"11111111-8812-40f4-890f-865bf6e35190\"\nmanaged_identity = true\nstart = \"8d\"",
        "m.toml:13: 'tenants.x.start' can be at most 167h50m: the API keeps content for 7 days",
    ),
    (
        "[tenants.x]\ntenant_id = \"11111111-8812-40f4-890f-865bf6e35190\"\nmanaged_identity = true\noverlap = \"1m\"",
        "m.toml:13: 'tenants.x.overlap' must be at least 5m: blobs appear late and clocks differ",
    ),
    (
        "[tenants.x]\ntenant_id = \"11111111-8812-40f4-890f-865bf6e35190\"\nmanaged_identity = true\noverlap = \"25h\"",
        "m.toml:13: 'tenants.x.overlap' can be at most 24h, not 1d1h",
    ),
    (
        "[tenants.x]\ntenant_id = \"11111111-8812-40f4-890f-865bf6e35190\"\nmanaged_identity = true\npoll_interval = \"500ms\"",
        "m.toml:13: 'tenants.x.poll_interval' must be at least 1s: every listing takes requests that fetching needs",
    ),
    (
        "[tenants.x]\ntenant_id = \"11111111-8812-40f4-890f-865bf6e35190\"\nmanaged_identity = true\n\
         content_types = [\"Audit.General\", \"Audit.General\"]",
        "m.toml:13: 'tenants.x.content_types' names a content type twice",
    ),
    (
        "[tenants.x]\ntenant_id = \"11111111-8812-40f4-890f-865bf6e35190\"\nmanaged_identity = true\nclient_id = \"s3c~ret\"",
        "m.toml:13: 'tenants.x.client_id' must be the application (client) id, as the Entra admin center shows it; a client id \
         is the Application (client) ID of an app registration: letters, digits, `-`, `_` and `.`, at most 128 of them",
    ),
    // The network.
    (
        "[network]\nproxy = \"http://me:hunter2@proxy:3128\"",
        "m.toml:11: 'network.proxy' must not hold a password in the file; put the whole URL into an environment variable or a \
         file and write { env = \"NAME\" } or { file = \"/path\" }",
    ),
    (
        "[network]\nproxy = \"http://me:hunter2@[proxy\"",
        "m.toml:11: 'network.proxy' must be a URL such as \"http://proxy.example.com:3128\"; this is none: invalid IPv6 address",
    ),
    (
        "[network]\nproxy = \"socks5://proxy:1080\"",
        "m.toml:11: 'network.proxy' must be a URL such as \"http://proxy.example.com:3128\"; it must begin with http:// or \
         https://",
    ),
    (
        "[network]\nno_proxy = [\"10.0.0.0/8\"]",
        "m.toml:11: 'network.no_proxy' has no meaning without 'network.proxy'",
    ),
    // What is not TOML. The line may hold a secret and is not quoted.
    ("token = hunter2", "m.toml:10: this is not TOML: string values must be quoted, expected literal string"),
    ("type = \"file\"", "m.toml:10: this is not TOML: duplicate key"),
    ("view = raw", "m.toml:10: this is not TOML: string values must be quoted, expected literal string"),
    ("view = full", "m.toml:10: this is not TOML: invalid boolean, expected `false`; a text needs quotes"),
];

#[test]
fn every_wrong_configuration_is_told_its_line_its_key_and_what_would_be_right() {
    for (lines, message) in WRONG {
        assert_eq!(&problems(&format!("{HEAD}{lines}\n")), message, "{lines}");
    }
}
