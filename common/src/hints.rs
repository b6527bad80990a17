//! Root device hints: parse, match, say why not.
