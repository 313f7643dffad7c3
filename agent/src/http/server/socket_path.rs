//! Clients of unix sockets that say the socket's path where HTTP/2 has a host.
//!
//! grpc-java sends `:authority: /run/warifu/workload.sock` and grpc's C core `run%2Fwarifu%2F…`. Neither is an authority
//! (RFC 3986 §3.2), hyper resets such streams with PROTOCOL_ERROR, and has no setting for it (hyperium/h2#487). Here `/`
//! and `%` become `-` on the way in, and what follows them that a name may not have. Byte for byte, so that no length changes and
//! the compression's state (RFC 7541) stays what both sides think it is. Whoever compresses that value, or pads the
//! frame, is left alone, and is refused as before.

/// Where in the bytes of a client the next one is. Starts after the preface.
#[derive(Debug)]
pub(super) struct SocketPath {
    place: Place,
    /// Bytes left of the frame's payload.
    left: usize,
}

/// Of frames: RFC 9113 §4.1. Of fields: RFC 7541 §6.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In a frame's head, with so many bytes of it read.
    Head { read: usize, head: [u8; 9] },
    /// In what is of no interest, to the end of the frame.
    Skipped,
    /// Before the first field, with so many bytes to go.
    Priority(usize),
    /// At the first byte of a field.
    Field,
    /// In a number that began in the byte before.
    Number {
        value: usize,
        shift: u32,
        of: Number,
    },
    /// At the first byte of a string.
    StringHead(Part),
    /// In a string.
    Text { left: usize, part: Part },
    /// In an authority that may be one.
    Authority { left: usize },
    /// In one that is a path.
    Path { left: usize },
}

/// What a number is.
#[derive(Debug, Clone, Copy)]
enum Number {
    /// A whole field.
    Whole,
    /// Which name of the tables a field has.
    Name,
    /// A string's length.
    Length { part: Part, plain: bool },
}

/// Which string of a field.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// Its name, which gRPC's C core takes from no table; so much of it is the beginning of `:authority`, if it may be
    /// that.
    Name {
        same: Option<usize>,
    },
    Value,
    /// The value of `:authority`.
    Authority,
}

const HEADERS: u8 = 0x1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Bytes of the priority fields.
const PRIORITY_BYTES: usize = 5;
/// `:authority` in the static table.
const AUTHORITY: usize = 1;
const NAME: &[u8] = b":authority";
const START: Place = Place::Head {
    read: 0,
    head: [0; 9],
};

impl SocketPath {
    pub(super) fn new() -> Self {
        Self {
            place: START,
            left: 0,
        }
    }

    /// Looks through the next `bytes` of the client.
    pub(super) fn rewrite(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let here = std::mem::take(&mut bytes);
            if matches!(self.place, Place::Skipped) {
                let length = self.left.min(here.len());
                self.left -= length;
                bytes = here.get_mut(length..).unwrap_or_default();
            } else if let Some((byte, rest)) = here.split_first_mut() {
                self.take(byte);
                bytes = rest;
            }
            let in_frame = !matches!(self.place, Place::Head { .. });
            if in_frame && self.left == 0 {
                self.place = START;
            }
        }
    }

    fn take(&mut self, byte: &mut u8) {
        if let Place::Head { read, mut head } = self.place {
            if let Some(place) = head.get_mut(read) {
                *place = *byte;
            }
            let read = read + 1;
            match read == head.len() {
                true => self.begin(head),
                false => self.place = Place::Head { read, head },
            }
            return;
        }
        self.left -= 1;
        self.place = match self.place {
            Place::Priority(1) => Place::Field,
            Place::Priority(left) => Place::Priority(left - 1),
            Place::Field => field(*byte),
            Place::Number { value, shift, of } => further(value, shift, of, *byte),
            Place::StringHead(part) => {
                let plain = *byte & 0x80 == 0;
                number(*byte, 0x7f, Number::Length { part, plain })
            }
            Place::Authority { left } => match b"/%".contains(byte) {
                true => path(byte, left),
                false if left == 1 => Place::Field,
                false => Place::Authority { left: left - 1 },
            },
            Place::Path { left } => path(byte, left),
            Place::Text { left, part } => text(left - 1, part.after(*byte)),
            place @ (Place::Head { .. } | Place::Skipped) => place,
        };
    }

    fn begin(&mut self, head: [u8; 9]) {
        let [a, b, c, kind, flags, ..] = head;
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.place = match kind {
            HEADERS if flags & PADDED != 0 => Place::Skipped,
            HEADERS if flags & PRIORITY != 0 => Place::Priority(PRIORITY_BYTES),
            HEADERS => Place::Field,
            _ => Place::Skipped,
        };
    }
}

impl Part {
    /// With this byte more of it.
    fn after(self, byte: u8) -> Self {
        match self {
            Self::Name { same } => {
                let same = same.filter(|at| NAME.get(*at) == Some(&byte));
                Self::Name {
                    same: same.map(|at| at + 1),
                }
            }
            other => other,
        }
    }
}

fn field(first: u8) -> Place {
    match first {
        // Both from the tables.
        0x80.. => number(first, 0x7f, Number::Whole),
        // The value is here, and is to be remembered.
        0x40..=0x7f => number(first, 0x3f, Number::Name),
        // Not a field, but how large the table is.
        0x20..=0x3f => number(first, 0x1f, Number::Whole),
        // The value is here, and is not.
        0x00..=0x1f => number(first, 0x0f, Number::Name),
    }
}

/// A number in the low bits of a byte, or beginning there (RFC 7541 §5.1).
fn number(byte: u8, mask: u8, of: Number) -> Place {
    let value = usize::from(byte & mask);
    match byte & mask == mask {
        true => Place::Number {
            value,
            shift: 0,
            of,
        },
        false => known(value, of),
    }
}

fn further(value: usize, shift: u32, of: Number, byte: u8) -> Place {
    // Longer than any frame: it is hyper's to refuse.
    if shift > 21 {
        return Place::Skipped;
    }
    let value = value + (usize::from(byte & 0x7f) << shift);
    match byte & 0x80 == 0 {
        true => known(value, of),
        false => Place::Number {
            value,
            shift: shift + 7,
            of,
        },
    }
}

fn known(value: usize, of: Number) -> Place {
    match of {
        Number::Whole => Place::Field,
        Number::Name if value == 0 => Place::StringHead(Part::Name { same: Some(0) }),
        Number::Name if value == AUTHORITY => Place::StringHead(Part::Authority),
        Number::Name => Place::StringHead(Part::Value),
        Number::Length {
            part: Part::Authority,
            plain: true,
        } if value > 0 => Place::Authority { left: value },
        Number::Length {
            part: Part::Name { .. },
            plain: false,
        } => text(value, Part::Name { same: None }),
        Number::Length { part, .. } => text(value, part),
    }
}

fn text(left: usize, part: Part) -> Place {
    match (left, part) {
        (0, Part::Name { same }) if same == Some(NAME.len()) => Place::StringHead(Part::Authority),
        (0, Part::Name { .. }) => Place::StringHead(Part::Value),
        (0, Part::Value | Part::Authority) => Place::Field,
        _ => Place::Text { left, part },
    }
}

fn path(byte: &mut u8, left: usize) -> Place {
    if !(byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
        *byte = b'-';
    }
    match left {
        1 => Place::Field,
        _ => Place::Path { left: left - 1 },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What grpc-java 1.80 sends first: settings, a window, an acknowledgement, and a call.
    const CALL: &[u8] = b"A\x13/tmp/java-auth.sockD /SpiffeWorkloadAPI/FetchX509SVID\x83\x86\
        _\x10application/grpc@\x02te\x08trailersz\x16grpc-java-netty/1.80.0\
        @\x12workload.spiffe.io\x04true@\x14grpc-accept-encoding\x04gzip";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        [&head[..], payload].concat()
    }

    /// Through a reader that gets `step` bytes at a time.
    fn read(bytes: &[u8], step: usize) -> Vec<u8> {
        let (mut bytes, mut path) = (bytes.to_vec(), SocketPath::new());
        bytes.chunks_mut(step).for_each(|chunk| path.rewrite(chunk));
        bytes
    }

    fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
        let at = bytes.windows(old.len()).position(|it| it == old).unwrap();
        [&bytes[..at], new, &bytes[at + old.len()..]].concat()
    }

    #[test]
    fn a_sockets_path_becomes_an_authority_however_the_bytes_arrive_and_nothing_else_changes() {
        let settings = frame(4, 0, &[0, 2, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0]);
        // A body that looks like a call is none.
        let body = frame(0, 0, CALL);
        let with_priority = [&[0, 0, 0, 0, 15][..], CALL].concat();
        for call in [
            frame(HEADERS, 4, CALL),
            frame(HEADERS, 4 | PRIORITY, &with_priority),
        ] {
            let sent = [&settings[..], &call, &body, &frame(4, 1, &[]), &call].concat();
            let fixed = replaced(&call, b"/tmp/java-auth.sock", b"-tmp-java-auth.sock");
            let expected = [&settings[..], &fixed, &body, &frame(4, 1, &[]), &fixed].concat();
            for step in [1, 2, 3, 7, 64, 4096] {
                assert_eq!(read(&sent, step), expected, "{step} at a time");
            }
        }
    }

    #[test]
    fn every_form_of_the_field_is_found() {
        let value = b"%2Frun%2Fx.sock";
        let length = u8::try_from(value.len()).unwrap();
        for first in [0x41, 0x01, 0x11] {
            let field = [&[0x3f, 0xe1, 0x1f, 0x83, first, length][..], value].concat();
            let read = read(&frame(HEADERS, 4, &field), 4096);
            assert!(
                read.ends_with(b"-2Frun-2Fx.sock"),
                "{}",
                read.escape_ascii()
            );
        }
        // As gRPC's C core sends it: by name, and without the first slash.
        for first in [0x40, 0x00, 0x10] {
            let field = [
                &[first][..],
                b"\x0a:authority\x10tmp%2Fx%2Fw.sock\x44\x02/a",
            ]
            .concat();
            let read = read(&frame(HEADERS, 4, &field), 3);
            assert!(read.ends_with(b"tmp-2Fx-2Fw.sock\x44\x02/a"), "{first}");
        }
        // Longer than one byte can say.
        let long = format!("/{}", "a/".repeat(200));
        let field = [&[0x41, 0x7f, 0x92, 0x02][..], long.as_bytes()].concat();
        let read = read(&frame(HEADERS, 4, &field), 4096);
        assert!(read.ends_with(long.replace('/', "-").as_bytes()));
    }

    #[test]
    fn an_authority_that_is_one_and_what_is_elsewhere_stay_as_they_are() {
        let unchanged = |flags: u8, field: &[u8]| {
            let sent = frame(HEADERS, flags, field);
            assert_eq!(read(&sent, 4096), sent);
        };
        unchanged(4, b"\x41\x0bexample.org\x44\x02/a");
        unchanged(4, b"\x41\x00\x44\x02/a");
        unchanged(4, b"\x40\x01a\x02/a\x44\x02/a");
        unchanged(4, b"\x40\x0b:authority2\x02/a\x40\x09:authorit\x02/a");
        unchanged(4, b"\x40\x8a:authority\x02/a");
        // Compressed, or padded: not for us.
        unchanged(4, b"\x41\x82/a");
        // Were the length of the padding (131) a field, the next would be the authority.
        let padded = [&b"\x83\x41\x02/a"[..], &[0; 131]].concat();
        unchanged(4 | PADDED, &padded);
    }

    proptest! {
        #[test]
        fn s17_no_bytes_make_it_panic_or_depend_on_how_they_arrive(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            length in 0_u8..40,
            flags in any::<u8>(),
            step in 1_usize..50,
        ) {
            let sent = [&[0, 0, length, HEADERS, flags, 0, 0, 0, 1][..], &bytes].concat();
            let whole = read(&sent, sent.len());
            prop_assert_eq!(whole.len(), sent.len());
            prop_assert_eq!(read(&sent, step), whole);
        }
    }
}
