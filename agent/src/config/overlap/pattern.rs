//! The texts that a segment or a label can come out as, and whether two of them can come out alike.

use super::side::Demand;
use crate::config::value::template::Piece;

/// A set of texts: those of a template's piece under what its rule demands of the fact in it.
#[derive(Debug)]
pub(super) struct Pattern(Vec<Token>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Is(char),
    One,
    Many,
}

impl Pattern {
    pub(super) fn new(piece: &Piece, demand: Option<&Demand<'_>>) -> Self {
        let mut tokens: Vec<Token> = piece.prefix.chars().map(Token::Is).collect();
        if piece.fact.is_some() {
            match demand {
                Some(Demand::Is(value)) => tokens.extend(value.chars().map(Token::Is)),
                Some(Demand::Like(glob)) => {
                    let star = |c| if c == '*' { Token::Many } else { Token::Is(c) };
                    let wanted: Vec<Token> = glob.as_str().chars().map(star).collect();
                    // A fact that fills something is not empty.
                    if wanted.iter().all(|token| *token == Token::Many) {
                        tokens.push(Token::One);
                    }
                    tokens.extend(wanted);
                }
                None => tokens.extend([Token::One, Token::Many]),
            }
            tokens.extend(piece.suffix.chars().map(Token::Is));
        }
        Self(tokens)
    }

    /// Whether a template could be filled with it at all.
    pub(super) fn is_possible(&self, allowed: fn(char) -> bool) -> bool {
        let mut tokens = self.0.iter();
        tokens.all(|token| !matches!(token, Token::Is(c) if !allowed(*c)))
    }

    /// The only text, if there is one only.
    pub(super) fn constant(&self) -> Option<String> {
        let literal = |token: &Token| match token {
            Token::Is(c) => Some(*c),
            Token::One | Token::Many => None,
        };
        self.0.iter().map(literal).collect()
    }

    /// What all the texts begin with.
    pub(super) fn prefix(&self) -> String {
        let literal = |token: &Token| match token {
            Token::Is(c) => Some(*c),
            Token::One | Token::Many => None,
        };
        self.0.iter().map_while(literal).collect()
    }

    pub(super) fn contains(&self, text: &str) -> bool {
        let text = Self(text.chars().map(Token::Is).collect());
        self.meet(&text).is_some()
    }

    /// Another text than `known` that both contain; none if there is no other.
    pub(super) fn meet_again(&self, other: &Self, known: &str) -> Option<String> {
        if self.constant().is_some() || other.constant().is_some() {
            return None;
        }
        // With stars that long, a text is longer than `known`; mostly, shorter ones do.
        (1..=known.len() + 1).find_map(|length| {
            let text = self
                .with_stars_of(length)
                .meet(&other.with_stars_of(length));
            text.filter(|text| text != known)
        })
    }

    fn with_stars_of(&self, length: usize) -> Self {
        let longer = |token: &Token| match token {
            Token::Many => [vec![Token::One; length], vec![Token::Many]].concat(),
            token => vec![*token],
        };
        Self(self.0.iter().flat_map(longer).collect())
    }

    /// A text that both contain, and a short one; none if there is none.
    pub(super) fn meet(&self, other: &Self) -> Option<String> {
        let (ours, theirs) = (&self.0, &other.0);
        if differ_at_an_end(ours.iter().zip(theirs))
            || differ_at_an_end(ours.iter().rev().zip(theirs.iter().rev()))
        {
            return None;
        }
        let width = theirs.len() + 1;
        // Whether the rest of ours from i and the rest of theirs from j have a text in common.
        let mut common = vec![false; (ours.len() + 1) * width];
        for i in (0..=ours.len()).rev() {
            for j in (0..=theirs.len()).rev() {
                let at = |i: usize, j: usize| common.get(i * width + j) == Some(&true);
                let is = match (ours.get(i), theirs.get(j)) {
                    (None, None) => true,
                    (Some(Token::Many), next) => at(i + 1, j) || (next.is_some() && at(i, j + 1)),
                    (next, Some(Token::Many)) => at(i, j + 1) || (next.is_some() && at(i + 1, j)),
                    (Some(one), Some(another)) => one.meet(*another) && at(i + 1, j + 1),
                    _ => false,
                };
                if let Some(cell) = common.get_mut(i * width + j) {
                    *cell = is;
                }
            }
        }
        let at = |i: usize, j: usize| common.get(i * width + j) == Some(&true);
        if !at(0, 0) {
            return None;
        }
        let (mut i, mut j, mut text) = (0, 0, String::new());
        loop {
            match (ours.get(i), theirs.get(j)) {
                (None, None) => return Some(text),
                (Some(Token::Many), _) if at(i + 1, j) => i += 1,
                (_, Some(Token::Many)) if at(i, j + 1) => j += 1,
                (Some(Token::Many), Some(token)) => {
                    text.extend(token.example());
                    j += 1;
                }
                (Some(token), Some(Token::Many)) => {
                    text.extend(token.example());
                    i += 1;
                }
                (Some(one), Some(another)) => {
                    let literal = if matches!(one, Token::Is(_)) {
                        one
                    } else {
                        another
                    };
                    text.extend(literal.example());
                    i += 1;
                    j += 1;
                }
                // Not reached: `common` says there is a way on.
                (Some(_), None) | (None, Some(_)) => return None,
            }
        }
    }
}

impl Token {
    fn meet(self, other: Self) -> bool {
        match (self, other) {
            (Self::Is(one), Self::Is(another)) => one == another,
            _ => true,
        }
    }

    fn example(self) -> Option<char> {
        match self {
            Self::Is(c) => Some(c),
            Self::One => Some('x'),
            Self::Many => None,
        }
    }
}

/// Whether two literals differ before any star: cheap, and true of most pairs.
fn differ_at_an_end<'a>(mut pairs: impl Iterator<Item = (&'a Token, &'a Token)>) -> bool {
    let met = pairs.find(|(one, another)| one != another || **one == Token::Many);
    matches!(met, Some((Token::Is(_), Token::Is(_))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        let token = |c| match c {
            '*' => Token::Many,
            '?' => Token::One,
            c => Token::Is(c),
        };
        Pattern(text.chars().map(token).collect())
    }

    /// The definition, for texts of a few letters.
    fn contains(pattern: &[Token], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((Token::Many, rest)), _) => {
                (0..=text.len()).any(|at| contains(rest, &text[at..]))
            }
            (Some((Token::One, rest)), Some((_, text))) => contains(rest, text),
            (Some((Token::Is(p), rest)), Some((c, text))) => p == c && contains(rest, text),
            _ => false,
        }
    }

    fn texts(length: usize) -> Vec<Vec<char>> {
        let mut all = vec![vec![]];
        for from in 0..length {
            let longer: Vec<Vec<char>> = all
                .iter()
                .filter(|text| text.len() == from)
                .flat_map(|text| ['a', 'b', 'x'].map(|c| [text.clone(), vec![c]].concat()))
                .collect();
            all.extend(longer);
        }
        all
    }

    proptest! {
        #[test]
        fn two_patterns_meet_in_a_text_of_both_and_else_there_is_none(
            one in "[ab?*]{0,4}", other in "[ab?*]{0,4}",
        ) {
            let (one, other) = (pattern(&one), pattern(&other));
            match one.meet(&other) {
                Some(text) => {
                    let again = one.meet_again(&other, &text);
                    let stars = [&one, &other].map(|pattern| pattern.0.contains(&Token::Many));
                    prop_assert!(again.is_some() || stars != [true; 2], "{} alone", text);
                    prop_assert!(again.as_ref() != Some(&text));
                    for text in [Some(text), again].into_iter().flatten() {
                        let text: Vec<char> = text.chars().collect();
                        prop_assert!(contains(&one.0, &text) && contains(&other.0, &text), "{:?}", text);
                    }
                }
                None => {
                    for text in texts(5) {
                        prop_assert!(!(contains(&one.0, &text) && contains(&other.0, &text)), "{:?}", text);
                    }
                }
            }
        }
    }
}
