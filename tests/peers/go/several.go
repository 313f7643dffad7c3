package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// several chooses one of a workload's identities by its hint, with sources that live on, and writes what it has, a line
// of JSON each time:
//
//	hints            of all the identities it was told of last
//	id, serial       of the X.509-SVID it chose
//	token            whose JWT-SVID the same choice gives
//	named            whose JWT-SVID it gets for the SPIFFE ID of its X.509-SVID
//	no_x509, no_token, no_named  why it has none
func several(s settings) error {
	ctx := context.Background()
	options := workloadapi.WithClientOptions(workloadapi.WithAddr(s.socket))
	var hints []string
	// Called with the source's lock held, and read after it: nil leaves the source without an identity.
	x509, err := workloadapi.NewX509Source(ctx, options, workloadapi.WithDefaultX509SVIDPicker(func(svids []*x509svid.SVID) *x509svid.SVID {
		var chosen *x509svid.SVID
		all := []string{}
		for _, svid := range svids {
			all = append(all, svid.Hint)
			if svid.Hint == s.hint {
				chosen = svid
			}
		}
		hints = all
		return chosen
	}))
	if err != nil {
		return err
	}
	jwt, err := workloadapi.NewJWTSource(ctx, options, workloadapi.WithDefaultJWTSVIDPicker(func(svids []*jwtsvid.SVID) *jwtsvid.SVID {
		for _, svid := range svids {
			if svid.Hint == s.hint {
				return svid
			}
		}
		return nil
	}))
	if err != nil {
		return err
	}
	file, err := os.OpenFile(s.addressFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	events := json.NewEncoder(file)
	for ; ; time.Sleep(200 * time.Millisecond) {
		line := map[string]any{}
		svid, err := x509.GetX509SVID()
		line["hints"] = hints
		if err != nil {
			line["no_x509"] = err.Error()
		} else {
			line["id"] = svid.ID.String()
			line["serial"] = hex.EncodeToString(svid.Certificates[0].SerialNumber.Bytes())
			named, err := jwt.FetchJWTSVID(ctx, jwtsvid.Params{Audience: s.audience, Subject: svid.ID})
			if err != nil {
				line["no_named"] = err.Error()
			} else {
				line["named"] = named.ID.String()
			}
		}
		token, err := jwt.FetchJWTSVID(ctx, jwtsvid.Params{Audience: s.audience})
		switch {
		case err != nil:
			line["no_token"] = err.Error()
		case token == nil:
			line["no_token"] = "none has the hint"
		default:
			line["token"] = token.ID.String()
		}
		if err := events.Encode(line); err != nil {
			return err
		}
	}
}
