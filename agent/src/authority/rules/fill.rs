//! Facts into templates. What comes out is safe whatever the facts say (S18).

use super::Facts;
use crate::config::value::template::{
    DnsTemplate, IdTemplate, MAX_NAME, MAX_PATH, Piece, is_label, is_label_character,
    is_no_segment, is_path_character, is_reserved,
};

/// The path of a SPIFFE ID.
pub(super) fn path(template: &IdTemplate, facts: &Facts) -> Result<String, String> {
    let mut path = String::new();
    for (index, piece) in template.segments().iter().enumerate() {
        let allowed = "letters, digits, \"-\", \"_\" and \".\"";
        let filled = fill(piece, facts, is_path_character, allowed)?;
        if is_no_segment(&filled) {
            return Err(format!("{filled:?} is no path segment"));
        }
        if index == 0 && is_reserved(&filled) {
            return Err(format!("/{filled} is reserved"));
        }
        path.push('/');
        path.push_str(&filled);
    }
    if path.len() > MAX_PATH {
        return Err(format!("the path is over {MAX_PATH} bytes"));
    }
    Ok(path)
}

/// A DNS name.
pub(super) fn dns(template: &DnsTemplate, facts: &Facts) -> Result<String, String> {
    let mut name = String::new();
    for piece in template.labels() {
        let allowed = "lower-case letters, digits and \"-\"";
        let filled = fill(piece, facts, is_label_character, allowed)?;
        if !is_label(&filled) {
            return Err(format!("{filled:?} is no DNS label"));
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&filled);
    }
    if name.len() > MAX_NAME {
        return Err(format!("{name} is over {MAX_NAME} bytes"));
    }
    Ok(name)
}

fn fill(
    piece: &Piece,
    facts: &Facts,
    allowed: fn(char) -> bool,
    expected: &str,
) -> Result<String, String> {
    let Some(fact) = &piece.fact else {
        return Ok(piece.prefix.clone());
    };
    let value = facts
        .get(fact)
        .ok_or_else(|| format!("fact {fact:?} was not attested"))?;
    if value.is_empty() || !value.chars().all(allowed) {
        return Err(format!("fact {fact} is {value:?}; expected {expected}"));
    }
    Ok(format!("{}{value}{}", piece.prefix, piece.suffix))
}
