package main

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// timeout bounds a whole call: a peer that hangs is a failure to show, not to wait for.
const timeout = 30 * time.Second

// serve answers every request with what it saw, to the expected client and to no other.
func serve(s settings) error {
	svid, bundle, authorizer, err := s.load()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := s.announce(listener.Addr().String()); err != nil {
		return err
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(answer),
		TLSConfig:         tlsconfig.MTLSServerConfig(svid, bundle, authorizer),
		ReadHeaderTimeout: timeout,
	}
	return server.ServeTLS(listener, "", "")
}

func answer(w http.ResponseWriter, r *http.Request) {
	id, err := x509svid.IDFromCert(r.TLS.PeerCertificates[0])
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("content-type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"peer":     id.String(),
		"method":   r.Method,
		"host":     r.Host,
		"target":   r.RequestURI,
		"protocol": r.Proto,
		"tls":      tls.VersionName(r.TLS.Version),
		"resumed":  r.TLS.DidResume,
		"body":     string(body),
	})
}

// call gets the URL from the expected server, twice over two connections, and says what came.
func call(s settings) error {
	config, err := s.clientConfig()
	if err != nil {
		return err
	}
	// Go resumes where it can: a second connection with the same cache shows whether the server lets it.
	config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	var answers []map[string]any
	for range 2 {
		answer, err := s.get(config)
		if err != nil {
			return err
		}
		answers = append(answers, answer)
	}
	return say(answers)
}

func (s settings) get(config *tls.Config) (map[string]any, error) {
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: s.http2}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: timeout}
	response, err := client.Get(s.url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"status":   response.StatusCode,
		"protocol": response.Proto,
		"tls":      tls.VersionName(response.TLS.Version),
		"resumed":  response.TLS.DidResume,
		"body":     string(body),
	}, nil
}

func (s settings) clientConfig() (*tls.Config, error) {
	if !s.raw {
		svid, bundle, authorizer, err := s.load()
		if err != nil {
			return nil, err
		}
		return tlsconfig.MTLSClientConfig(svid, bundle, authorizer), nil
	}
	// go-spiffe refuses to load what is no X.509-SVID; the standard library presents anything.
	certificate, err := tls.LoadX509KeyPair(s.file("svid.pem"), s.file("key.pem"))
	if err != nil {
		return nil, err
	}
	bundle, err := x509bundle.Load(s.trustDomain, s.file("bundle.pem"))
	if err != nil {
		return nil, err
	}
	expected, err := spiffeid.FromString(s.expect)
	if err != nil {
		return nil, err
	}
	config := tlsconfig.TLSClientConfig(bundle, tlsconfig.AuthorizeID(expected))
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &certificate, nil
	}
	return config, nil
}

func (s settings) load() (*x509svid.SVID, *x509bundle.Bundle, tlsconfig.Authorizer, error) {
	svid, err := x509svid.Load(s.file("svid.pem"), s.file("key.pem"))
	if err != nil {
		return nil, nil, nil, err
	}
	bundle, err := x509bundle.Load(s.trustDomain, s.file("bundle.pem"))
	if err != nil {
		return nil, nil, nil, err
	}
	expected, err := spiffeid.FromString(s.expect)
	if err != nil {
		return nil, nil, nil, err
	}
	return svid, bundle, tlsconfig.AuthorizeID(expected), nil
}

// announce writes the address in one step: who sees the file sees all of it.
func (s settings) announce(address string) error {
	draft := s.addressFile + ".draft"
	if err := os.WriteFile(draft, []byte(address), 0o600); err != nil {
		return err
	}
	return os.Rename(draft, s.addressFile)
}
