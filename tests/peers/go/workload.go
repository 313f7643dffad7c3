package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// sources are what the Workload API gives. Each is nil until it has been had.
type sources struct {
	// How many calls failed, and what was said of the last.
	failures atomic.Int64
	lock     sync.Mutex
	said     string
	svids    *workloadapi.X509Source
	jwt      *workloadapi.JWTSource
	bundles  *workloadapi.BundleSource
	// Where it serves mTLS once it can.
	serves string
	// Why a source gave up, if one did.
	ended string
}

// workload takes sources from the Workload API, serves mTLS with them, and does what it is asked over HTTP:
//
//	/state                      what it has
//	/call?url=U&expect=ID       an mTLS call over a new connection
//	/token?audience=A           a JWT-SVID, validated with the source's bundle
//	/bundle?trust_domain=T      how many roots and keys the sources have of it
func workload(s settings) error {
	held := &sources{}
	go held.obtain(s)
	mux := http.NewServeMux()
	mux.HandleFunc("/state", respond(held.state))
	mux.HandleFunc("/call", respond(held.call))
	mux.HandleFunc("/token", respond(held.token))
	mux.HandleFunc("/bundle", respond(held.bundle))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := s.announce(listener.Addr().String()); err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: timeout}
	return server.Serve(listener)
}

func respond(ask func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		said, err := ask(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("content-type", "application/json")
		_ = json.NewEncoder(w).Encode(said)
	}
}

func (s *sources) obtain(settings settings) {
	ctx := context.Background()
	options := workloadapi.WithClientOptions(workloadapi.WithAddr(settings.socket), workloadapi.WithLogger(s))
	svids, err := workloadapi.NewX509Source(ctx, options)
	if err == nil {
		err = s.serve(svids)
	}
	var jwt *workloadapi.JWTSource
	if err == nil {
		jwt, err = workloadapi.NewJWTSource(ctx, options)
	}
	var bundles *workloadapi.BundleSource
	if err == nil {
		bundles, err = workloadapi.NewBundleSource(ctx, options)
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	s.svids, s.jwt, s.bundles = svids, jwt, bundles
	if err != nil {
		s.ended = err.Error()
	}
}

// serve answers everybody of the trust domain with who they are.
func (s *sources) serve(source *workloadapi.X509Source) error {
	svid, err := source.GetX509SVID()
	if err != nil {
		return err
	}
	authorizer := tlsconfig.AuthorizeMemberOf(svid.ID.TrustDomain())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.lock.Lock()
	s.serves = listener.Addr().String()
	s.lock.Unlock()
	server := &http.Server{
		Handler:           http.HandlerFunc(answer),
		TLSConfig:         tlsconfig.MTLSServerConfig(source, source, authorizer),
		ReadHeaderTimeout: timeout,
	}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	return nil
}

func (s *sources) state(*http.Request) (any, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	state := map[string]any{"failures": s.failures.Load(), "said": s.said, "ended": s.ended, "ready": s.bundles != nil}
	if s.bundles == nil {
		return state, nil
	}
	svid, err := s.svids.GetX509SVID()
	if err != nil {
		return nil, err
	}
	state["id"] = svid.ID.String()
	state["serial"] = hex.EncodeToString(svid.Certificates[0].SerialNumber.Bytes())
	state["serves"] = s.serves
	return state, nil
}

func (s *sources) had() (*workloadapi.X509Source, *workloadapi.JWTSource, *workloadapi.BundleSource, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.bundles == nil {
		return nil, nil, nil, fmt.Errorf("no sources yet: %s", s.said)
	}
	return s.svids, s.jwt, s.bundles, nil
}

func (s *sources) call(r *http.Request) (any, error) {
	source, _, _, err := s.had()
	if err != nil {
		return nil, err
	}
	expect, err := spiffeid.FromString(r.FormValue("expect"))
	if err != nil {
		return nil, err
	}
	config := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(expect))
	var server string
	verify := config.VerifyPeerCertificate
	config.VerifyPeerCertificate = func(raw [][]byte, _ [][]*x509.Certificate) error {
		if err := verify(raw, nil); err != nil {
			return err
		}
		id, serial, err := leaf(raw)
		server = serial + " " + id
		return err
	}
	response, err := fetch(config, r.FormValue("url"))
	if err != nil {
		return nil, err
	}
	return map[string]any{"server": server, "told": json.RawMessage(response)}, nil
}

func fetch(config *tls.Config, url string) ([]byte, error) {
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	client := http.Client{Transport: transport, Timeout: timeout}
	response, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return body, err
}

func (s *sources) token(r *http.Request) (any, error) {
	_, source, _, err := s.had()
	if err != nil {
		return nil, err
	}
	audience := r.FormValue("audience")
	token, err := source.FetchJWTSVID(r.Context(), jwtsvid.Params{Audience: audience})
	if err != nil {
		return nil, err
	}
	valid, err := jwtsvid.ParseAndValidate(token.Marshal(), source, []string{audience})
	if err != nil {
		return nil, err
	}
	return map[string]any{"subject": valid.ID.String(), "audience": valid.Audience}, nil
}

func (s *sources) bundle(r *http.Request) (any, error) {
	svids, jwt, bundles, err := s.had()
	if err != nil {
		return nil, err
	}
	trustDomain, err := spiffeid.TrustDomainFromString(r.FormValue("trust_domain"))
	if err != nil {
		return nil, err
	}
	roots, err := svids.GetX509BundleForTrustDomain(trustDomain)
	if err != nil {
		return nil, err
	}
	keys, err := jwt.GetJWTBundleForTrustDomain(trustDomain)
	if err != nil {
		return nil, err
	}
	both, err := bundles.GetBundleForTrustDomain(trustDomain)
	if err != nil {
		return nil, err
	}
	if len(both.X509Authorities()) != len(roots.X509Authorities()) || len(both.JWTAuthorities()) != len(keys.JWTAuthorities()) {
		return nil, fmt.Errorf("the sources differ")
	}
	return map[string]any{"roots": len(roots.X509Authorities()), "keys": len(keys.JWTAuthorities())}, nil
}

// What go-spiffe logs: one error for each call that failed.

func (s *sources) Errorf(format string, args ...any) {
	s.failures.Add(1)
	s.lock.Lock()
	s.said = fmt.Sprintf(format, args...)
	s.lock.Unlock()
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func (s *sources) Warnf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (s *sources) Infof(string, ...any)             {}
func (s *sources) Debugf(string, ...any)            {}

func leaf(raw [][]byte) (id, serial string, err error) {
	certificate, err := x509.ParseCertificate(raw[0])
	if err != nil {
		return "", "", err
	}
	spiffeID, err := x509svid.IDFromCert(certificate)
	return spiffeID.String(), hex.EncodeToString(certificate.SerialNumber.Bytes()), err
}
