//! The issuing API, version 1: JSON over HTTPS (see `docs/issuing-api.md`). Bytes are base64url without padding.
