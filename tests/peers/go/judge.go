package main

import (
	"errors"
	"os"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// judge reads everything the authority issued with go-spiffe's own parsers and verifiers.
func judge(s settings) error {
	svid, err := x509svid.Load(s.file("svid.pem"), s.file("key.pem"))
	if err != nil {
		return err
	}
	roots, err := x509bundle.Load(s.trustDomain, s.file("bundle.pem"))
	if err != nil {
		return err
	}
	bundle, err := spiffebundle.Load(s.trustDomain, s.file("bundle.json"))
	if err != nil {
		return err
	}
	if !bundle.X509Bundle().Equal(roots) {
		return errors.New("bundle.json and bundle.pem hold different roots")
	}
	id, chains, err := x509svid.Verify(svid.Certificates, bundle)
	if err != nil {
		return err
	}
	token, err := os.ReadFile(s.file("token.jwt"))
	if err != nil {
		return err
	}
	jwt, err := jwtsvid.ParseAndValidate(string(token), bundle, []string{s.audience})
	if err != nil {
		return err
	}
	_, otherAudience := jwtsvid.ParseAndValidate(string(token), bundle, []string{"another"})
	sequence, _ := bundle.SequenceNumber()
	hint, _ := bundle.RefreshHint()
	return say(map[string]any{
		"x509_id":                id.String(),
		"chain_length":           len(chains[0]),
		"jwt_id":                 jwt.ID.String(),
		"jwt_audience":           jwt.Audience,
		"other_audience_refused": otherAudience != nil,
		"x509_authorities":       len(bundle.X509Authorities()),
		"jwt_authorities":        len(bundle.JWTAuthorities()),
		"sequence":               sequence,
		"refresh_hint_seconds":   int(hint.Seconds()),
	})
}
