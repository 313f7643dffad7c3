package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// issued is what ours.json has: keys, a token of each, and what a token must say.
type issued struct {
	Issuer     string                    `json:"issuer"`
	Audience   string                    `json:"audience"`
	Now        int64                     `json:"now"`
	Algorithms []jose.SignatureAlgorithm `json:"algorithms"`
	JWKS       jose.JSONWebKeySet        `json:"jwks"`
	Tokens     []string                  `json:"tokens"`
}

// verify is the algorithm of a token that go-jose takes.
func (ours issued) verify(token string) (string, error) {
	parsed, err := jwt.ParseSigned(token, ours.Algorithms)
	if err != nil {
		return "", err
	}
	header := parsed.Headers[0]
	keys := ours.JWKS.Key(header.KeyID)
	if len(keys) != 1 || keys[0].Algorithm != header.Algorithm {
		return "", errors.New("not one key of this name and algorithm")
	}
	var claims jwt.Claims
	if err := parsed.Claims(keys[0].Key, &claims); err != nil {
		return "", err
	}
	expected := jwt.Expected{Issuer: ours.Issuer, AnyAudience: jwt.Audience{ours.Audience}, Time: time.Now()}
	return header.Algorithm, claims.Validate(expected)
}

// changed is the token with another subject.
func changed(token string) string {
	parts := strings.Split(token, ".")
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	parts[1] = base64.RawURLEncoding.EncodeToString(
		[]byte(strings.Replace(string(payload), `"sub":"`, `"sub":"un`, 1)))
	return strings.Join(parts, ".")
}

func newKey(algorithm jose.SignatureAlgorithm) (crypto.Signer, error) {
	switch algorithm {
	case jose.EdDSA:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case jose.ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.ES384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case jose.ES512:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	default:
		return rsa.GenerateKey(rand.Reader, 2048)
	}
}

// joseLibrary verifies our tokens with go-jose, and makes some of its own.
func joseLibrary(s settings) error {
	file, err := os.ReadFile(s.file("ours.json"))
	if err != nil {
		return err
	}
	var ours issued
	if err := json.Unmarshal(file, &ours); err != nil {
		return err
	}
	verified, deceived := []string{}, []string{}
	for _, token := range ours.Tokens {
		if algorithm, err := ours.verify(token); err == nil {
			verified = append(verified, algorithm)
		}
		if algorithm, err := ours.verify(changed(token)); err == nil {
			deceived = append(deceived, algorithm)
		}
	}

	var keys jose.JSONWebKeySet
	tokens := []string{}
	at := func(seconds int64) *jwt.NumericDate { return jwt.NewNumericDate(time.Unix(ours.Now+seconds, 0)) }
	for _, algorithm := range ours.Algorithms {
		key, err := newKey(algorithm)
		if err != nil {
			return err
		}
		kid := "go-jose-" + string(algorithm)
		options := (&jose.SignerOptions{}).WithType("JWT")
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, options)
		if err != nil {
			return err
		}
		token, err := jwt.Signed(signer).Claims(jwt.Claims{
			Issuer: ours.Issuer, Audience: jwt.Audience{ours.Audience}, Subject: "signed with " + string(algorithm),
			ID: string(algorithm), IssuedAt: at(-10), NotBefore: at(-10), Expiry: at(600),
		}).Serialize()
		if err != nil {
			return err
		}
		tokens = append(tokens, token)
		keys.Keys = append(keys.Keys, jose.JSONWebKey{Key: key.Public(), KeyID: kid, Algorithm: string(algorithm), Use: "sig"})
	}
	return say(map[string]any{"verified": verified, "deceived": deceived, "jwks": keys, "tokens": tokens})
}
