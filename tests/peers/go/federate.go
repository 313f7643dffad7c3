package main

import (
	"context"
	"crypto/x509"
	"errors"
	"os"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// federate fetches a bundle with go-spiffe's federation client: with https_spiffe where an endpoint ID is
// expected, else with https_web.
func federate(s settings) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	option, err := s.profile()
	if err != nil {
		return err
	}
	bundle, err := federation.FetchBundle(ctx, s.trustDomain, s.url, option)
	if err != nil {
		return err
	}
	sequence, _ := bundle.SequenceNumber()
	hint, _ := bundle.RefreshHint()
	return say(map[string]any{
		"trust_domain":         bundle.TrustDomain().Name(),
		"x509_authorities":     len(bundle.X509Authorities()),
		"jwt_authorities":      len(bundle.JWTAuthorities()),
		"sequence":             sequence,
		"refresh_hint_seconds": int(hint.Seconds()),
	})
}

func (s settings) profile() (federation.FetchOption, error) {
	if s.expect != "" {
		id, err := spiffeid.FromString(s.expect)
		if err != nil {
			return nil, err
		}
		roots, err := x509bundle.Load(s.trustDomain, s.file("bundle.pem"))
		if err != nil {
			return nil, err
		}
		return federation.WithSPIFFEAuth(roots, id), nil
	}
	pem, err := os.ReadFile(s.file("web.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in web.pem")
	}
	return federation.WithWebPKIRoots(roots), nil
}
