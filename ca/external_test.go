package ca_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
)

func outside(t *testing.T, e *catest.ExternalCA, id *ca.Identity) *ca.Root {
	t.Helper()
	root, err := ca.MakeRoot(e.RootPEM, nil, &api.ExternalCA{Url: e.URL}, id)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestExternal_SignsForNodes(t *testing.T) {
	e := catest.NewExternalCA(t, 48*time.Hour)
	asker := ca.NewIdentity(catest.Credentials(t, newRoot(t), newName(api.Role_ROLE_MANAGER), 0))
	root := outside(t, e, asker)
	name := newName(api.Role_ROLE_WORKER)
	cert := catest.Credentials(t, root, name, 0).Chain()[0]
	if got, err := ca.NameOf(cert); err != nil || got != name {
		t.Errorf("name %v, %v", got, err)
	}
	if life := time.Until(cert.NotAfter); life > 48*time.Hour || life < 47*time.Hour {
		t.Errorf("the external CA decides the life; it is %v", life)
	}
	if e.Asked.Load() != 1 || e.Known.Load() != 1 {
		t.Errorf("asked %d times, %d of them as a node", e.Asked.Load(), e.Known.Load())
	}
	if key, err := root.RevealKey(); len(key) != 0 || err != nil {
		t.Errorf("a key that nobody has: %d bytes, %v", len(key), err)
	}
}

func TestExternal_SignsForPeople(t *testing.T) {
	root := outside(t, catest.NewExternalCA(t, 48*time.Hour), nil)
	_, csr := catest.KeyAndCSR(t)
	name := ca.UserName{ClusterID: catest.NewID(), User: "ada", Role: api.UserRole_USER_ROLE_VIEWER}
	chain, err := root.IssueUser(time.Now(), csr, name, ca.DefaultUserLife)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := ca.ParseBundle(chain)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ca.UserOf(certs[0]); err != nil || got != name {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := root.IssueUser(time.Now(), csr, name, time.Hour); !errors.Is(err, ca.ErrExternal) {
		t.Errorf("for an hour, of a CA that signs for two days: %v", err)
	}
}

func TestExternal_RefusesWhatNodesCannotUse(t *testing.T) {
	_, csr := catest.KeyAndCSR(t)
	profile := ca.Profile{Name: newName(api.Role_ROLE_WORKER)}
	for _, life := range []time.Duration{10 * time.Minute, 91 * 24 * time.Hour} {
		if _, err := outside(t, catest.NewExternalCA(t, life), nil).Issue(time.Now(), csr, profile); !errors.Is(err, ca.ErrExternal) {
			t.Errorf("a life of %v: %v", life, err)
		}
	}
	e := catest.NewExternalCA(t, 48*time.Hour)
	other := catest.NewExternalCA(t, 48*time.Hour)
	impostor, err := ca.MakeRoot(e.RootPEM, nil, &api.ExternalCA{Url: other.URL}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := impostor.Issue(time.Now(), csr, profile); !errors.Is(err, ca.ErrExternal) || other.Asked.Load() != 0 {
		t.Errorf("a server that does not prove itself by the root: %v, asked %d times", err, other.Asked.Load())
	}
	for _, address := range []string{"", "http://127.0.0.1:8888", "https://", "https://u:p@h:1", "https://h:1/path", "h:1"} {
		if _, err := ca.MakeRoot(e.RootPEM, nil, &api.ExternalCA{Url: address}, nil); !errors.Is(err, ca.ErrExternal) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// What does not sign is named, with what it said; nobody is asked instead of it, and no answer is read without end.
func TestExternal_SaysWhyThereIsNoSignature(t *testing.T) {
	elsewhere := catest.NewExternalCA(t, 48*time.Hour)
	for want, answer := range map[string]http.HandlerFunc{
		`"no such profile" (error 5200)`: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"success":false,"errors":[{"code":5200,"message":"no such profile"}]}`)
		},
		"does not say why: 200 OK": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{}`) },
		"does not answer as cfssl does: 502 Bad Gateway": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>", http.StatusBadGateway)
		},
		"does not answer as cfssl does: 200 OK": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"success":true,"result":{"certificate":"`+strings.Repeat("A", 1<<20)+`"}}`)
		},
		"does not answer as cfssl does: 307 Temporary Redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
		},
	} {
		e := catest.NewExternalCA(t, 48*time.Hour)
		e.Instead = answer
		_, csr := catest.KeyAndCSR(t)
		_, err := outside(t, e, nil).Issue(time.Now(), csr, ca.Profile{Name: newName(api.Role_ROLE_WORKER)})
		if !errors.Is(err, ca.ErrExternal) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), e.URL) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if asked := elsewhere.Asked.Load(); asked != 0 {
		t.Errorf("another server was asked %d times", asked)
	}
}

// A swarm goes to an external CA and comes back: whoever trusts only the root before it trusts what the next one signs.
func TestExternal_CrossSigns(t *testing.T) {
	own, next := newRoot(t), newRoot(t)
	e := outside(t, catest.NewExternalCA(t, 48*time.Hour), nil)
	for what, c := range map[string]struct{ from, to *ca.Root }{"to it": {own, e}, "back": {e, next}} {
		if err := c.from.CheckNext(time.Now(), c.to); err != nil {
			t.Fatal(err)
		}
		cross, err := c.from.CrossSign(time.Now(), c.to)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		crossCerts, err := ca.ParseBundle(cross)
		if err != nil {
			t.Fatal(err)
		}
		c2 := catest.Credentials(t, c.to, newName(api.Role_ROLE_WORKER), 0)
		if _, err := ca.NewCredentials(certificates(c.from), append(c2.Chain(), crossCerts...), c2.RevealKey()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := e.CheckNext(time.Now(), outside(t, catest.NewExternalCA(t, time.Hour), nil)); !errors.Is(err, ca.ErrBadRoot) {
		t.Errorf("to another external CA: %v", err)
	}
}
