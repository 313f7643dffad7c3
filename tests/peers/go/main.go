// Command peer is go-spiffe, the reference implementation, as a peer of the tests: it judges what the
// authority issued, and calls or serves with it; and golang.org/x/oauth2, the AWS SDK for Go and go-jose beside it. A directory holds what it works with:
//
//	svid.pem key.pem     an X.509-SVID and its key
//	bundle.pem           the roots of the trust domain
//	bundle.json          the trust bundle, as the bundle endpoint serves it
//	token.jwt            a JWT-SVID
//	web.pem              the CA of an https_web endpoint
//	client-id, client-secret  credentials of an OAuth client
//	ours.json            keys, tokens, and what they must say
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// settings are what the command line says.
type settings struct {
	dir         string
	trustDomain spiffeid.TrustDomain
	expect      string
	audience    string
	url         string
	http2       bool
	raw         bool
	addressFile string
	scopes      string
	style       string
	socket      string
	follow      bool
	hint        string
}

func (s settings) file(name string) string { return filepath.Join(s.dir, name) }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	commands := map[string]func(settings) error{"judge": judge, "serve": serve, "call": call, "federate": federate, "oauth": oauth, "workload": workload, "several": several, "aws": aws, "jose": joseLibrary}
	if len(args) == 0 || commands[args[0]] == nil {
		return fmt.Errorf("expected judge, serve, call, federate, oauth, workload, several, aws or jose, and flags")
	}
	var s settings
	var trustDomain string
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.StringVar(&s.dir, "dir", "", "the directory of certificates and keys")
	flags.StringVar(&trustDomain, "trust-domain", "", "the trust domain of everyone")
	flags.StringVar(&s.expect, "expect", "", "the SPIFFE ID of the other side; federate: empty for https_web")
	flags.StringVar(&s.audience, "audience", "", "judge, several: the audience the JWT-SVID is for; oauth: the one to ask for")
	flags.StringVar(&s.url, "url", "", "call, federate: what to get; oauth: the token endpoint")
	flags.BoolVar(&s.http2, "http2", false, "call: over HTTP/2")
	flags.BoolVar(&s.raw, "raw", false, "call: present the files as they are, even if they are no X.509-SVID")
	flags.StringVar(&s.addressFile, "address-file", "", "serve, workload: where to write the address once it listens; several: what it has; oauth: a unix socket")
	flags.StringVar(&s.scopes, "scopes", "", "oauth: the scopes, with spaces between them")
	flags.StringVar(&s.style, "style", "basic", "oauth: how the client authenticates: basic, post, none")
	flags.BoolVar(&s.follow, "follow", false, "oauth: ask for each line of the input")
	flags.StringVar(&s.socket, "socket", "", "workload, several: the Workload API, as unix:///path")
	flags.StringVar(&s.hint, "hint", "", "several: of the identity to choose")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	var err error
	if s.trustDomain, err = spiffeid.TrustDomainFromString(trustDomain); err != nil {
		return err
	}
	return commands[args[0]](s)
}

// say prints what the test reads.
func say(what any) error { return json.NewEncoder(os.Stdout).Encode(what) }
