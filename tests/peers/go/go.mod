// The Go peers of the tests; built by tests/src/peers/go.rs.
module warifu.example/peers

go 1.24.0

require (
	github.com/spiffe/go-spiffe/v2 v2.9.0
	golang.org/x/oauth2 v0.33.0
)

require github.com/go-jose/go-jose/v4 v4.1.5 // indirect
