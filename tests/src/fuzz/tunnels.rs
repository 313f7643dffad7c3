//! What leads to a tunnel: a proxy's answer to CONNECT, a WebSocket's handshake.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, Request, StatusCode,
    header::{
        CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING,
        UPGRADE,
    },
};
use warifu_agent::http::{
    pool::{Verdict, verdict},
    upgrade::Wanted,
};

use super::read_headers;

/// A proxy's answer, as far as it came.
pub fn proxy_answer(bytes: &[u8]) {
    let ends = |bytes: &[u8]| bytes.windows(4).any(|it| it == b"\r\n\r\n");
    match verdict(bytes) {
        Verdict::Connected => {
            assert!(bytes.starts_with(b"HTTP/1.1 2") || bytes.starts_with(b"HTTP/1.0 2"));
            // What comes next is not the proxy's: nothing came yet, and the head is whole.
            assert!(bytes.ends_with(b"\r\n\r\n") && !ends(&bytes[..bytes.len() - 1]));
        }
        Verdict::Incomplete => assert!(!ends(bytes) && bytes.len() < 8 * 1024),
        Verdict::Refused(why) => assert!(why.len() < 200 && !why.contains('\n'), "{why}"),
    }
    // Nothing is believed before its end.
    if bytes.len() > 1 && matches!(verdict(bytes), Verdict::Connected) {
        assert_eq!(verdict(&bytes[..bytes.len() - 1]), Verdict::Incomplete);
    }
}

/// The header lines of a request, an empty line, and those of its answer.
pub fn upgrade(bytes: &[u8]) {
    let at = bytes.windows(2).position(|it| it == b"\n\n");
    let (asked, answered) = bytes.split_at(at.unwrap_or(bytes.len()));
    let mut request = Request::new(());
    *request.headers_mut() = read_headers(asked);
    let (parts, ()) = request.into_parts();
    let answer = read_headers(answered);
    let Ok(Some(wanted)) = Wanted::of(&parts) else {
        return;
    };
    is_websocket(&parts.headers);
    assert!(
        parts
            .headers
            .get_all(CONTENT_LENGTH)
            .iter()
            .all(|it| it == "0")
    );
    if wanted
        .agreed(StatusCode::SWITCHING_PROTOCOLS, &answer)
        .is_ok()
    {
        is_websocket(&answer);
        assert!(!answer.contains_key(CONTENT_LENGTH));
        let key = parts.headers[SEC_WEBSOCKET_KEY].as_bytes().trim_ascii();
        let magic = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[key, magic].concat());
        let expected = STANDARD.encode(hash);
        let accepts: Vec<_> = answer.get_all(SEC_WEBSOCKET_ACCEPT).iter().collect();
        assert_eq!(accepts.len(), 1);
        assert_eq!(accepts[0].as_bytes().trim_ascii(), expected.as_bytes());
    }
    for status in [200, 204, 400, 426, 502] {
        let status = StatusCode::from_u16(status).expect("a status");
        assert!(wanted.agreed(status, &answer).is_err());
    }
}

fn is_websocket(headers: &HeaderMap) {
    let upgrades: Vec<_> = headers.get_all(UPGRADE).iter().collect();
    assert_eq!(upgrades.len(), 1);
    let upgrade = upgrades[0].as_bytes().trim_ascii();
    assert!(upgrade.eq_ignore_ascii_case(b"websocket"));
    let connection = headers.get_all(CONNECTION).iter();
    let named = connection.flat_map(|it| it.as_bytes().split(|byte| *byte == b','));
    let mut named = named.map(<[u8]>::trim_ascii);
    assert!(named.any(|it| it.eq_ignore_ascii_case(b"upgrade")));
    assert!(!headers.contains_key(TRANSFER_ENCODING));
}
