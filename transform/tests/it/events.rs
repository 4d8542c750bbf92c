//! Events of the fixtures and of real records.

use serde_json::Value;
use transform::{ClassPolicy, OcsfVersion, RawData, RenderOptions, View, published};

use crate::{
    checks::Checks,
    records::{all, event, fixtures, ours, render},
};

/// One event of each kind of operation, to be read by people.
#[test]
fn events_of_each_kind() {
    for (name, text) in fixtures() {
        let event = event(text.as_bytes(), &RenderOptions::default());
        insta::assert_snapshot!(name, serde_json::to_string_pretty(&event).unwrap());
    }
}

/// One event of every operation that has a row of its own in the mapping; those that the fixtures lack are made of one that
/// is much alike.
#[test]
fn events_of_every_operation() {
    let fixtures = fixtures();
    let record = |name: &str| -> Value {
        let (_, text) = fixtures.iter().find(|(fixture, _)| fixture == name).unwrap();
        serde_json::from_str(text).unwrap()
    };
    let had: Vec<String> = fixtures
        .iter()
        .filter_map(|(name, _)| Some(record(name)["Operation"].as_str()?.to_ascii_lowercase()))
        .collect();
    let operations = published::operations();
    assert!(operations.len() > 60);
    for operation in operations.iter().filter(|operation| !had.contains(&operation.to_ascii_lowercase())) {
        // The first whose words are all in the operation.
        let alike: [(&[&str], &str); 14] = [
            (&["-", "FolderPermission"], "set_mailbox_folder_permission"),
            (&["-", "RecipientPermission"], "remove_recipient_permission"),
            (&["-", "MailboxPermission"], "add_mailbox_permission"),
            (&["-", "GroupMember"], "add_role_group_member"),
            (&["-", "GroupLinks"], "remove_unified_group_links"),
            (&["-", "Group"], "new_distribution_group"),
            (&["-", "Role"], "new_role_assignment_user"),
            (&["-"], "new_mailbox"),
            (&["Permissions"], "modify_folder_permissions"),
            (&["Delegation"], "modify_folder_permissions"),
            (&["SearchC"], "purview_search_exported"),
            (&["Admin"], "purview_search_exported"),
            (&["Delete"], "hard_delete_sent"),
            (&[], "create"),
        ];
        let fits = |words: &[&str]| words.iter().all(|word| operation.contains(word));
        let (_, name) = alike.iter().find(|(words, _)| fits(words)).unwrap();
        let mut record = record(name);
        record["Operation"] = operation.as_str().into();
        let event = event(record.to_string().as_bytes(), &RenderOptions::default());
        assert_eq!(event["api"]["operation"], operation.as_str());
        insta::assert_snapshot!(
            format!("operation_{}", operation.replace('-', "_")),
            serde_json::to_string_pretty(&event).unwrap()
        );
    }
}

#[test]
fn every_event_is_valid() {
    let Some(checks) = Checks::load() else { return };
    let options = |change: fn(&mut RenderOptions)| {
        let mut options = RenderOptions::default();
        change(&mut options);
        options
    };
    let variants = [
        options(|_| {}),
        options(|o| o.class_policy = ClassPolicy::ApiOnly),
        options(|o| o.ocsf_version = OcsfVersion::V1_7),
        options(|o| o.ocsf_version = OcsfVersion::V1_6),
        options(|o| o.ocsf_version = OcsfVersion::V1_5),
        options(|o| {
            o.class_policy = ClassPolicy::ApiOnly;
            o.ocsf_version = OcsfVersion::V1_5;
        }),
        options(|o| o.raw_data = RawData::Full),
        options(|o| {
            o.raw_data = RawData::Hash;
            o.captions = false;
            o.observables = false;
            o.tags = false;
        }),
    ];
    let ours = ours().len();
    for (index, text) in all().into_iter().enumerate() {
        // Real records, which are many and much alike, take turns at the variants of the first.
        let turn = |n: usize| n == 0 || index < ours || n == 1 + index % (variants.len() - 1);
        for (_, options) in variants.iter().enumerate().filter(|(n, _)| turn(*n)) {
            let event = event(text.as_bytes(), options);
            let faults = checks.faults(&event);
            assert_eq!(faults, [""; 0], "{options:?}\n{text}\n{event:#}");
        }
    }
}

/// A server with its build is taken apart however the line break behind it is written, in every record that has one.
#[test]
fn servers_are_hosts_with_a_build() {
    let mut found = 0;
    for text in all() {
        let record: Value = serde_json::from_str(&text).unwrap();
        let server = record["OriginatingServer"].as_str().unwrap_or("").trim_end();
        let Some((host, build)) = server.strip_suffix(')').and_then(|server| server.split_once(" (")) else {
            continue;
        };
        let event = event(
            text.as_bytes(),
            &RenderOptions { class_policy: ClassPolicy::ApiOnly, ..RenderOptions::default() },
        );
        if event["unmapped"].get("exchange").is_none() || !build.starts_with("15.") {
            continue;
        }
        found += 1;
        assert_eq!(event["dst_endpoint"]["hostname"], host, "{text}");
        assert_eq!(event["unmapped"]["exchange"]["server_build"], build, "{text}");
    }
    assert!(found > 40);
}

/// The members of a group each stand for themselves: one as the class's `user`, several in the list that Exchange has.
#[test]
fn each_member_of_a_group_is_told() {
    let with = |members: Value, class_policy| {
        let record = serde_json::json!({
            "RecordType": 1, "Operation": "Add-UnifiedGroupLinks", "UserId": "admin@contoso.com", "ObjectId": "board",
            "Parameters": [{"Name": "Identity", "Value": "board"}, {"Name": "Links", "Value": members}],
        });
        event(record.to_string().as_bytes(), &RenderOptions { class_policy, ..RenderOptions::default() })
    };
    let members = |event: &Value| event["unmapped"]["exchange"]["members"].clone();
    let observed = |event: &Value| -> Vec<String> {
        let all = event["observables"].as_array().unwrap().iter();
        all.map(|observable| observable["name"].as_str().unwrap().to_owned()).collect()
    };
    let one = with("eve@contoso.com".into(), ClassPolicy::Rich);
    assert_eq!((&one["class_uid"], &one["user"]["name"]), (&3006.into(), &"eve@contoso.com".into()));
    assert_eq!(members(&one), serde_json::json!(["eve@contoso.com"]));
    assert!(!observed(&one).iter().any(|name| name.contains("members")));
    for (class_policy, class) in [(ClassPolicy::Rich, 3006), (ClassPolicy::ApiOnly, 6003)] {
        for value in
            [serde_json::json!("eve@contoso.com;Joni"), serde_json::json!(["eve@contoso.com", "Joni"])]
        {
            let several = with(value, class_policy);
            assert_eq!((&several["class_uid"], several.get("user")), (&class.into(), None));
            assert_eq!(members(&several), serde_json::json!(["eve@contoso.com", "Joni"]));
            let names = observed(&several);
            for path in ["unmapped.exchange.members[0]", "unmapped.exchange.members[1]"] {
                assert!(names.iter().any(|name| name == path), "{names:?}");
            }
        }
    }
}

/// What the directory calls a failed sign-in is no success, whatever else the record says.
#[test]
fn a_failed_sign_in_has_failed() {
    for status in [serde_json::json!("Success"), Value::Null] {
        let record =
            serde_json::json!({"RecordType": 15, "Operation": "UserLoginFailed", "ResultStatus": status});
        let event = event(record.to_string().as_bytes(), &RenderOptions::default());
        assert_eq!((&event["status_id"], &event["status"]), (&2.into(), &"Failure".into()));
        assert_eq!(event.get("status_code"), status.as_str().map(Value::from).as_ref());
    }
}

/// An apostrophe that came as an escape makes no other address.
#[test]
fn an_escaped_apostrophe_leaves_an_address_one() {
    let record = br#"{"RecordType":2,"Operation":"Send","UserId":"pat.o\u0027neil@contoso.com","Item":{"Id":"Unknown","Subject":"x"}}"#;
    let event = event(record, &RenderOptions::default());
    let address = "pat.o'neil@contoso.com";
    assert_eq!((&event["class_uid"], &event["email"]["from"]), (&4009.into(), &address.into()));
    assert_eq!(
        (&event["actor"]["user"]["email_addr"], &event["actor"]["user"]["domain"]),
        (&address.into(), &"contoso.com".into())
    );
    assert_eq!(
        (event["email"].get("uid"), &event["unmapped"]["exchange"]["item"]["Id"]),
        (None, &"Unknown".into())
    );
}

/// An older release has none of what came after it.
#[test]
fn older_releases_lack_what_they_did_not_have() {
    let ours = ours().len();
    let mut seen = [false; 6];
    for (index, text) in all().into_iter().enumerate() {
        let turn = |n: usize| index < ours || n == index % 4;
        for (_, version) in OcsfVersion::ALL.into_iter().enumerate().filter(|(n, _)| turn(*n)) {
            let options =
                RenderOptions { ocsf_version: version, raw_data: RawData::Hash, ..RenderOptions::default() };
            let event = event(text.as_bytes(), &options);
            assert_eq!(event["metadata"]["version"], version.as_str());
            let roles = event["resources"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|r| r.get("role_id").is_some())
                .count();
            let lacking = [
                (OcsfVersion::V1_8, event["api"].get("token").is_some()),
                (OcsfVersion::V1_7, event["metadata"].get("original_event_uid").is_some()),
                (OcsfVersion::V1_6, roles > 0),
                (OcsfVersion::V1_6, event.get("raw_data_hash").is_some()),
                (OcsfVersion::V1_6, event["actor"]["user"]["type_id"] == 4),
                (OcsfVersion::V1_6, event.get("email").is_some_and(|email| email.get("sender").is_some())),
            ];
            for (index, (since, there)) in lacking.into_iter().enumerate() {
                assert!(!there || version >= since, "{version:?} {event}");
                seen[index] |= there;
            }
        }
    }
    assert_eq!(seen, [true; 6], "a later release has all of them");
}

/// What an older release has no word for stands beside 99 under its own name, and the sender is still the actor.
#[test]
fn services_and_senders_are_told_in_the_oldest_release_too() {
    for (user_type, name) in [(5, "Application"), (6, "ServicePrincipal")] {
        let record = serde_json::json!({
            "RecordType": 2, "Operation": "SendOnBehalf", "UserId": "app@contoso.com", "UserType": user_type,
            "MailboxOwnerUPN": "joni@contoso.com", "Item": {"Id": "1", "Subject": "x"},
        });
        let with = |ocsf_version| {
            let options = RenderOptions { ocsf_version, ..RenderOptions::default() };
            event(record.to_string().as_bytes(), &options)
        };
        let (old, new) = (with(OcsfVersion::V1_5), with(OcsfVersion::V1_6));
        let kind = |event: &Value| {
            (event["actor"]["user"]["type_id"].clone(), event["actor"]["user"]["type"].clone())
        };
        assert_eq!((kind(&old), kind(&new)), ((99.into(), name.into()), (4.into(), "Service".into())));
        assert_eq!((old["email"].get("sender"), &new["email"]["sender"]), (None, &"app@contoso.com".into()));
        assert_eq!(old["actor"]["user"]["email_addr"], "app@contoso.com");
    }
}

/// Some senders write the name of the kind of user.
#[test]
fn a_user_type_by_its_name_is_understood() {
    let record =
        serde_json::json!({"RecordType": 2, "Operation": "Create", "UserId": "a@b.c", "UserType": "admin"});
    let event = event(record.to_string().as_bytes(), &RenderOptions::default());
    assert_eq!(
        (&event["actor"]["user"]["type_id"], &event["actor"]["user"]["type"]),
        (&2.into(), &"Admin".into())
    );
    let exchange = &event["unmapped"]["exchange"];
    assert_eq!((&exchange["user_type_id"], &exchange["user_type"]), (&2.into(), &"Admin".into()));
    assert_eq!(event["unmapped"]["UserType"], "admin");
}

#[test]
fn raw_is_the_record_itself_on_one_line() {
    let options = RenderOptions { view: View::Raw, ..RenderOptions::default() };
    for text in all() {
        let line = render(text.as_bytes(), &options).unwrap();
        assert_eq!(String::from_utf8(line).unwrap(), text.replace('\n', ""));
    }
}

#[test]
fn what_is_no_record_is_a_dead_letter_with_its_reason() {
    for view in View::ALL {
        let options = RenderOptions { view, ..RenderOptions::default() };
        for (bytes, reason) in [
            (&b"[1]"[..], "it is not a JSON object but begins with `[`"),
            (b"\"text\"", "it is not a JSON object but begins with `\"`"),
            (b"", "it is not a JSON object but begins with nothing"),
            (b"{\"a\":1", "it is not JSON: `,` or `}` was expected at byte 6"),
            (b"{\"a\":\"\xff\"}", "it is not UTF-8 at byte 6"),
        ] {
            assert_eq!(render(bytes, &options).unwrap_err(), reason);
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(
            render(deep.as_bytes(), &options).unwrap_err(),
            "it is nested deeper than 100 levels at byte 104"
        );
    }
}

/// What is nearly JSON is put right rather than lost.
#[test]
fn control_characters_and_halves_of_pairs_are_put_right() {
    let text = "{\"Id\":\"a\nb\",\"Subject\":\"\\ud800!\"}";
    let event = event(text.as_bytes(), &RenderOptions::default());
    assert_eq!(event["metadata"]["uid"], "a\nb");
    assert_eq!(event["unmapped"]["Subject"], "\u{fffd}!");
    let raw = RenderOptions { view: View::Raw, ..RenderOptions::default() };
    let line = render(text.as_bytes(), &raw).unwrap();
    assert_eq!(line, b"{\"Id\":\"a\\nb\",\"Subject\":\"\\ud800!\"}");
}

/// A bare control character in a text is no JSON, which some receivers of raw records would refuse them for; any other byte
/// is left alone.
#[test]
fn raw_records_are_their_own_bytes_but_for_bare_control_characters() {
    let raw = RenderOptions { view: View::Raw, ..RenderOptions::default() };
    let text = "{ \"Id\" :\t\"a\tb\u{0}c\u{7f}\\u0009\" ,\r\n\"b\": 1.50 }";
    let line = String::from_utf8(render(text.as_bytes(), &raw).unwrap()).unwrap();
    assert_eq!(line, "{ \"Id\" :\t\"a\\tb\\u0000c\u{7f}\\u0009\" ,\"b\": 1.50 }");
    assert!(serde_json::from_str::<Value>(&line).is_ok());
}

/// A line break that is taken out makes no other number of what stands around it.
#[test]
fn tokens_that_a_line_break_parts_are_not_joined() {
    for text in [
        "{\"OperationCount\":1\n2}",
        "{\"OperationCount\":1 2,\n\"Id\":\"x\"}",
        "{\"OperationCount\":-\r\n2}",
        "{\"OperationCount\":1 2,\"Id\":\"a\tb\"}",
        "{\"a\":tr\nue}",
    ] {
        for view in View::ALL {
            let options = RenderOptions { view, ..RenderOptions::default() };
            let reason = render(text.as_bytes(), &options).unwrap_err();
            assert!(reason.starts_with("it is not JSON: "), "{view} {text:?}: {reason}");
        }
    }
}

/// JSON in a text may be pretty-printed; its line breaks are escapes there, and none in the event.
#[test]
fn pretty_parameters_in_a_text_leave_an_event_on_one_line() {
    for field in ["Parameters", "OperationProperties"] {
        let pretty = "[{\"Name\":\"A\",\"Value\":[\r\n1,\n\"x y\"]},{\"Name\":\"B\",\"Value\":{\n\"c\": 2}}]";
        let record =
            serde_json::json!({"RecordType": 1, "Operation": "Set-Mailbox", field: pretty}).to_string();
        for view in View::ALL {
            let options = RenderOptions { view, ..RenderOptions::default() };
            let line = render(record.as_bytes(), &options).unwrap();
            assert!(
                !line.contains(&b'\n') && !line.contains(&b'\r'),
                "{view} {}",
                String::from_utf8_lossy(&line)
            );
            let event: Value = serde_json::from_slice(&line).unwrap();
            if view == View::Ocsf {
                let data = &event["api"]["request"]["data"];
                assert_eq!(data, &serde_json::json!({"A": [1, "x y"], "B": {"c": 2}}));
            }
        }
    }
}

#[test]
fn raw_data_is_what_was_asked_for() {
    let text = "{\n \"Id\": \"x\"\n}";
    let with = |raw_data| event(text.as_bytes(), &RenderOptions { raw_data, ..RenderOptions::default() });
    assert_eq!(with(RawData::None).get("raw_data"), None);
    let full = with(RawData::Full);
    assert_eq!((&full["raw_data"], &full["raw_data_size"]), (&Value::from(text), &Value::from(text.len())));
    // The size is older than the hash.
    let options = RenderOptions {
        raw_data: RawData::Full,
        ocsf_version: OcsfVersion::V1_5,
        ..RenderOptions::default()
    };
    assert_eq!(event(text.as_bytes(), &options)["raw_data_size"], text.len());
    let hash = with(RawData::Hash);
    assert_eq!(hash.get("raw_data"), None);
    assert_eq!(
        hash["raw_data_hash"]["value"],
        "ee1ef1648c01bd07b7149e28fe0b841b45587ee69ad9f009499cb1e3aa20189c"
    );
}
