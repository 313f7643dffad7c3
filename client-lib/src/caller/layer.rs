//! The tower layer.

/// Puts the verified [`super::Caller`] into request extensions.
#[derive(Debug, Clone)]
pub struct CallerLayer {}

/// What [`CallerLayer`] makes.
#[derive(Debug, Clone)]
pub struct CallerService<S> {
    #[allow(dead_code)]
    inner: S,
}
