use proptest::prelude::*;

use super::*;

const JSON: &str = r#"{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Account":"123456789012",
"Arn":"arn:aws:sts::123456789012:assumed-role/orders/i-1","UserId":"AROAEXAMPLE0000000000:i-1"},
"ResponseMetadata":{"RequestId":"01234567-89ab-cdef-0123-456789abcdef"}}}"#;

const XML: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <GetCallerIdentityResult>
    <Arn>arn:aws:sts::123456789012:assumed-role/orders/i-1</Arn>
    <UserId>AROAEXAMPLE0000000000:i-1</UserId>
    <Account>123456789012</Account>
  </GetCallerIdentityResult>
  <ResponseMetadata><RequestId>01234567-89ab-cdef-0123-456789abcdef</RequestId></ResponseMetadata>
</GetCallerIdentityResponse>
"#;

fn ok(content_type: &str, body: &str) -> Result<Caller, NoCaller> {
    read(StatusCode::OK, content_type, body.as_bytes())
}

fn caller() -> Caller {
    Caller {
        arn: "arn:aws:sts::123456789012:assumed-role/orders/i-1".into(),
        user_id: "AROAEXAMPLE0000000000:i-1".into(),
        account: "123456789012".into(),
    }
}

#[test]
fn the_one_document_is_read_in_both_its_forms() {
    assert_eq!(ok("application/json", JSON), Ok(caller()));
    assert_eq!(ok("application/json; charset=utf-8", JSON), Ok(caller()));
    assert_eq!(ok("text/xml", XML), Ok(caller()));
    let (_, bare) = XML.split_once("?>\n").unwrap();
    assert_eq!(ok("text/xml;charset=UTF-8", bare), Ok(caller()));
}

#[test]
fn s07_the_form_is_the_content_types_and_no_other_is_tried() {
    for (content_type, body) in [
        ("text/xml", JSON),
        ("application/json", XML),
        ("text/html", XML),
        ("text/html", JSON),
        ("", JSON),
        ("application/jsonp", JSON),
        ("x/application/json", JSON),
    ] {
        let read = ok(content_type, body);
        assert!(
            matches!(read, Err(NoCaller::NotUnderstood(_))),
            "{content_type}: {read:?}"
        );
    }
}

#[test]
fn s07_json_that_is_nearly_the_document_is_not_read() {
    let result = r#""GetCallerIdentityResult":{"Account":"1","Arn":"a","UserId":"u"}"#;
    let metadata = r#""ResponseMetadata":{"RequestId":"r"}"#;
    let whole = |inner: &str| format!("{{\"GetCallerIdentityResponse\":{{{inner}}}}}");
    let good = whole(&format!("{result},{metadata}"));
    assert!(ok("application/json", &good).is_ok(), "{good}");
    let nested = whole(&format!(
        "\"GetCallerIdentityResponse\":{{{result},{metadata}}}"
    ));
    for bad in [
        nested,
        // Twice, in either place.
        whole(&format!("{result},{result},{metadata}")),
        whole(&format!(
            "{},{metadata}",
            result.replace("\"Arn\":\"a\"", "\"Arn\":\"a\",\"Arn\":\"b\"")
        )),
        format!(
            "{},{}",
            good.trim_end_matches('}'),
            "\"GetCallerIdentityResponse\":{}}"
        ),
        // More, less, other.
        whole(&format!(
            "{},{metadata}",
            result.replace("\"Arn\"", "\"arn\"")
        )),
        whole(&format!(
            "{},{metadata}",
            result.replace("\"a\"", "[\"a\"]")
        )),
        whole(&format!(
            "{},{metadata}",
            result.replace("\"a\"", "\"a\",\"More\":1")
        )),
        whole(result),
        format!("{good}{good}"),
        good.replace("GetCallerIdentity", "GetFederationToken"),
        "null".into(),
        "[]".into(),
        "[".repeat(100_000),
        "{\"a\":".repeat(10_000),
    ] {
        let read = ok("application/json", &bad);
        assert!(matches!(read, Err(NoCaller::NotUnderstood(_))), "{bad}");
    }
}

#[test]
fn s07_xml_that_is_nearly_the_document_is_not_read() {
    for (this, that) in [
        ("<Arn>", "<Arn xmlns=\"x\">"),
        ("<Arn>", "<Arn><!-- -->"),
        ("<Account>123456789012</Account>", ""),
        (
            "<Account>123456789012</Account>",
            "<Account>123456789012</Account><Account>1</Account>",
        ),
        ("<Account>123456789012</Account>", "<Arn>x</Arn>"),
        ("<Arn>arn:", "<Arn><![CDATA[arn:]]>"),
        ("<Arn>arn:", "<Arn>&#97;rn:"),
        ("2011-06-15", "2011-06-16"),
        ("<ResponseMetadata>", "<Other/><ResponseMetadata>"),
        (
            "</GetCallerIdentityResponse>",
            "</GetCallerIdentityResponse><x/>",
        ),
        (
            "<GetCallerIdentityResult>",
            "<GetCallerIdentityResult><GetCallerIdentityResult>",
        ),
        ("GetCallerIdentity", "AssumeRole"),
        (
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
            "<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]>",
        ),
        (
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
            "<?xml version=\"1.0\"<x>?>",
        ),
        ("<?xml version=\"1.0\" encoding=\"UTF-8\"?>", "<html>"),
    ] {
        let bad = XML.replacen(this, that, 1);
        assert_ne!(bad, XML);
        let read = ok("text/xml", &bad);
        assert!(
            matches!(read, Err(NoCaller::NotUnderstood(_))),
            "{this} → {that}: {read:?}"
        );
    }
}

#[test]
fn a_refusal_is_told_from_a_failure_and_only_its_code_is_repeated() {
    let read = |status: u16, body: &str| {
        read(
            StatusCode::from_u16(status).unwrap(),
            "text/xml",
            body.as_bytes(),
        )
        .unwrap_err()
    };
    let xml = |code: &str| {
        format!(
            "<ErrorResponse><Error><Code>{code}</Code><Message>secret</Message></Error></ErrorResponse>"
        )
    };
    assert_eq!(
        read(403, &xml("SignatureDoesNotMatch")),
        NoCaller::Refused("SignatureDoesNotMatch".into())
    );
    let json =
        r#"{"Error":{"Code":"ExpiredToken","Message":"secret","Type":"Sender"},"RequestId":"x"}"#;
    assert_eq!(read(403, json), NoCaller::Refused("ExpiredToken".into()));
    for (status, code) in [
        (400, "Throttling"),
        (429, "Whatever"),
        (503, "ServiceUnavailable"),
        (500, "InternalFailure"),
    ] {
        assert_eq!(read(status, &xml(code)), NoCaller::Busy(code.into()));
    }
    assert_eq!(read(502, "<html>"), NoCaller::Busy("502".into()));
    for (status, body) in [
        (403, "<html>"),
        (404, ""),
        (403, "<Code>a b</Code>"),
        (302, &*xml("X")),
        (307, ""),
        (204, ""),
    ] {
        assert!(
            matches!(read(status, body), NoCaller::NotUnderstood(_)),
            "{status} {body}"
        );
    }
    assert!(matches!(
        read(403, &xml(&"x".repeat(65))),
        NoCaller::NotUnderstood(_)
    ));
}

proptest! {
    #[test]
    fn s17_no_answer_panics(status in 200u16..599, xml in any::<bool>(), body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let content_type = if xml { "text/xml" } else { "application/json" };
        let _ = read(StatusCode::from_u16(status).unwrap(), content_type, &body);
    }

    #[test]
    fn s07_what_is_read_stands_in_the_answer(cut in 0usize..700, insert in "[<>/&\\PC]{0,6}") {
        let at = XML.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(XML.len());
        let changed = format!("{}{insert}{}", &XML[..at], &XML[at..]);
        if let Ok(caller) = ok("text/xml", &changed) {
            for value in [caller.arn, caller.user_id, caller.account] {
                let written = format!(">{value}<");
                prop_assert!(changed.contains(&written), "{}", written);
            }
        }
    }
}
