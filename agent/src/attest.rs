//! Evidence an agent presents, and the words agent and authority speak ([`wire`]).

pub mod wire;
