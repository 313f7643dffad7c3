package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// oauth asks the token endpoint at -url for a token with golang.org/x/oauth2/clientcredentials, with the client id
// and secret of the files client-id and client-secret, in the -style basic, post or none; over the unix socket
// -address-file where there is one. Says the token, or the error as the library understood it. With -follow it asks once
// for each line of its input, {"kept": bool}: kept, through one token source that lives on, as an app has it; else anew.
func oauth(s settings) error {
	client := &http.Client{Timeout: timeout}
	if s.addressFile != "" {
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", s.addressFile)
		}
		client.Transport = &http.Transport{DialContext: dial}
	}
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, client)
	config := clientcredentials.Config{TokenURL: s.url, Scopes: strings.Fields(s.scopes)}
	if s.audience != "" {
		config.EndpointParams = url.Values{"audience": {s.audience}}
	}
	if s.style != "none" {
		id, err := os.ReadFile(s.file("client-id"))
		if err != nil {
			return err
		}
		secret, err := os.ReadFile(s.file("client-secret"))
		if err != nil {
			return err
		}
		config.ClientID, config.ClientSecret = string(id), string(secret)
	}
	config.AuthStyle = map[string]oauth2.AuthStyle{
		"basic": oauth2.AuthStyleInHeader,
		"post":  oauth2.AuthStyleInParams,
		"none":  oauth2.AuthStyleInParams,
	}[s.style]
	if !s.follow {
		return sayToken(config.Token(ctx))
	}
	kept := config.TokenSource(ctx)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var ask struct {
			Kept bool `json:"kept"`
		}
		if err := json.Unmarshal(lines.Bytes(), &ask); err != nil {
			return err
		}
		source := kept
		if !ask.Kept {
			source = config.TokenSource(ctx)
		}
		if err := sayToken(source.Token()); err != nil {
			if err := say(map[string]any{"unreachable": err.Error()}); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

// sayToken says a token or a refusal. Any other error is returned.
func sayToken(token *oauth2.Token, err error) error {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) {
		return say(map[string]any{
			"status":      refused.Response.StatusCode,
			"retry_after": refused.Response.Header.Get("Retry-After"),
			"error":       refused.ErrorCode,
			"description": refused.ErrorDescription,
		})
	}
	if err != nil {
		return err
	}
	return say(map[string]any{
		"token":      token.AccessToken,
		"type":       token.TokenType,
		"expires_in": token.ExpiresIn,
		"scope":      token.Extra("scope"),
		"valid":      token.Valid(),
	})
}
