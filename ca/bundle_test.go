package ca_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
)

func TestParseBundle(t *testing.T) {
	one := newRoot(t).CertificatePEM()
	good := map[string]struct {
		in   []byte
		want int
	}{
		"one":         {one, 1},
		"two":         {append(bytes.Clone(one), newRoot(t).CertificatePEM()...), 2},
		"white space": {append([]byte("\n\n"), append(bytes.Clone(one), "\r\n \n"...)...), 1},
	}
	for name, c := range good {
		if got, err := ca.ParseBundle(c.in); err != nil || len(got) != c.want {
			t.Errorf("%s: %d certificates, %v", name, len(got), err)
		}
	}
	bad := map[string][]byte{
		"nothing":      nil,
		"space":        []byte(" \n"),
		"text between": bytes.Join([][]byte{one, one}, []byte("hello\n")),
		"cut":          one[:len(one)/2],
		"cut, whole":   append(bytes.Clone(one[:len(one)/2]), one...),
		"no DER":       []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
		"a key":        []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
		"too many":     bytes.Repeat(one, ca.MaxCertificates+1),
		"too large":    append(bytes.Clone(one), strings.Repeat("\n", ca.MaxBundleSize)...),
	}
	for name, in := range bad {
		if got, err := ca.ParseBundle(in); !errors.Is(err, ca.ErrBadBundle) || got != nil {
			t.Errorf("%s: %d certificates, %v", name, len(got), err)
		}
	}
}

func TestParseRoots_RefusesWhatIsNoRoot(t *testing.T) {
	root := newRoot(t)
	leaf := catest.Credentials(t, root, newName(api.Role_ROLE_MANAGER), 0)
	if _, err := ca.ParseRoots(ca.EncodeBundle(leaf.Chain())); !errors.Is(err, ca.ErrBadBundle) {
		t.Errorf("a node's certificate: %v", err)
	}
	forged := *root.Certificate()
	forged.Raw = bytes.Clone(forged.Raw)
	forged.Raw[len(forged.Raw)-1] ^= 1
	if _, err := ca.ParseRoots(ca.EncodeBundle([]*x509.Certificate{&forged})); !errors.Is(err, ca.ErrBadBundle) {
		t.Errorf("a broken signature: %v", err)
	}
}

func TestNewCredentials_RefusesWhatDoesNotBelongTogether(t *testing.T) {
	root, other := newRoot(t), newRoot(t)
	c := catest.Credentials(t, root, newName(api.Role_ROLE_WORKER), 0)
	key, _ := catest.KeyAndCSR(t)
	_, err := ca.NewCredentials(c.Roots(), c.Chain(), key)
	if !errors.Is(err, ca.ErrMismatch) {
		t.Errorf("another key: %v", err)
	}
	_, err = ca.NewCredentials([]*x509.Certificate{other.Certificate()}, c.Chain(), c.RevealKey())
	if !errors.Is(err, ca.ErrMismatch) {
		t.Errorf("another root: %v", err)
	}
	_, err = ca.NewCredentials(c.Roots(), c.Roots(), c.RevealKey())
	if !errors.Is(err, ca.ErrBadName) {
		t.Errorf("the root as node: %v", err)
	}
	_, err = ca.NewCredentials(nil, c.Chain(), c.RevealKey())
	if !errors.Is(err, ca.ErrBadBundle) {
		t.Errorf("no root: %v", err)
	}
}

func TestSecretsRedactThemselves(t *testing.T) {
	root := newRoot(t)
	c := catest.Credentials(t, root, newName(api.Role_ROLE_WORKER), 0)
	type holder struct {
		R *ca.Root
		C ca.Credentials
		r ca.Root
		c ca.Credentials
	}
	reveal, err := root.RevealKey()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(reveal)
	secrets := []string{fmt.Sprintf("%x", block.Bytes), strings.Trim(fmt.Sprint(block.Bytes), "[]"), string(block.Bytes)}
	raw, err := c.RevealKey().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	secrets = append(secrets, fmt.Sprintf("%x", raw), strings.Trim(fmt.Sprint(raw), "[]"), string(raw))
	h := holder{root, c, *root, c}
	var logged bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewJSONHandler(&logged, nil), slog.NewTextHandler(&logged, nil)} {
		slog.New(handler).Info("x", "root", root, "credentials", c, "holder", h)
	}
	encoded, err := json.Marshal([]any{root, c, h})
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{logged.String(), string(encoded), root.String(), root.GoString(), c.String(), c.GoString()}
	for _, text := range texts {
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("a key is in %q", text)
			}
		}
		if !strings.Contains(text, "[redacted]") {
			t.Errorf("nothing is redacted in %q", text)
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{root, *root, c, &c, h, &h} {
			out := fmt.Sprintf(verb, v)
			for _, s := range secrets {
				if strings.Contains(out, s) {
					t.Errorf("%s of %T prints a key", verb, v)
				}
			}
			if _, redacts := v.(fmt.Formatter); redacts && out != "[redacted]" {
				t.Errorf("%s of %T prints %q", verb, v, out)
			}
		}
	}
}
