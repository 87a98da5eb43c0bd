package contexts_test

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/contexts"
	"github.com/skep-io/skep/internal/fault"
)

// newContext returns a context with a certificate of a real CA.
func newContext(t *testing.T, name string) contexts.Context {
	t.Helper()
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	cert := catest.UserCertificate(t, root, ca.UserName{ClusterID: catest.NewID(), User: "alice", Role: api.UserRole_USER_ROLE_VIEWER}, 0)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return contexts.Context{Name: name, Description: "the swarm", Endpoint: client.Endpoint{Host: "tcp://10.0.0.1:2376", TLS: client.TLS{
		CA: root.CertificatePEM(), Cert: ca.EncodeBundle([]*x509.Certificate{cert.Leaf}),
		Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}}}
}

func newStore(t *testing.T) contexts.Store {
	t.Helper()
	return contexts.Store{Dir: filepath.Join(t.TempDir(), "skep")}
}

func TestStore_KeepsContexts(t *testing.T) {
	s, c := newStore(t), newContext(t, "prod")
	if names, err := s.List(); err != nil || !slices.Equal(names, []string{"default"}) {
		t.Errorf("at first: %q, %v", names, err)
	}
	if err := s.Create(c); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get("prod")
	if diff := cmp.Diff(c, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if err := s.Create(c); fault.KindOf(err) != fault.AlreadyExists {
		t.Errorf("again: %v", err)
	}
	if names, err := s.List(); err != nil || !slices.Equal(names, []string{"default", "prod"}) {
		t.Errorf("then: %q, %v", names, err)
	}
	if _, err := s.Get("other"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("other: %v", err)
	}
}

// Nothing in the directory is for others to read (X1).
func TestStore_IsForItsOwnerAlone(t *testing.T) {
	s := newStore(t)
	if err := s.Create(newContext(t, "prod")); err != nil {
		t.Fatal(err)
	}
	if err := s.Use("prod"); err != nil {
		t.Fatal(err)
	}
	files := 0
	err := filepath.WalkDir(s.Dir, func(name string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", name, info.Mode())
		}
		files++
		return err
	})
	if err != nil || files < 6 {
		t.Errorf("%d files, %v", files, err)
	}
}

func TestStore_UsesAndForgets(t *testing.T) {
	s := newStore(t)
	if err := s.Create(newContext(t, "prod")); err != nil {
		t.Fatal(err)
	}
	if err := s.Use("nothere"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("use what is not there: %v", err)
	}
	check := func(want string) {
		t.Helper()
		if got, err := s.Current(); err != nil || got != want {
			t.Errorf("current %q, %v; want %q", got, err, want)
		}
	}
	check("default")
	if err := s.Use("prod"); err != nil {
		t.Fatal(err)
	}
	check("prod")
	if err := s.Remove("prod", false); fault.KindOf(err) != fault.Precondition {
		t.Errorf("in use: %v", err)
	}
	if err := s.Remove("prod", true); err != nil {
		t.Fatal(err)
	}
	check("default")
	if err := s.Remove("prod", true); fault.KindOf(err) != fault.NotFound {
		t.Errorf("twice: %v", err)
	}
	if err := s.Remove("default", true); fault.KindOf(err) != fault.Invalid {
		t.Errorf("the default: %v", err)
	}
}

func TestStore_RefusesWhatIsNoContext(t *testing.T) {
	s := newStore(t)
	for what, change := range map[string]func(*contexts.Context){
		"no name":                   func(c *contexts.Context) { c.Name = "" },
		"the parent":                func(c *contexts.Context) { c.Name = ".." },
		"a path":                    func(c *contexts.Context) { c.Name = "a/b" },
		"the default":               func(c *contexts.Context) { c.Name = contexts.Default },
		"no host":                   func(c *contexts.Context) { c.Host = "" },
		"another way":               func(c *contexts.Context) { c.Host = "ssh://10.0.0.1" },
		"no certificate":            func(c *contexts.Context) { c.TLS.Cert = nil },
		"no key":                    func(c *contexts.Context) { c.TLS.Key = nil },
		"nobody who vouches for it": func(c *contexts.Context) { c.TLS.CA = []byte("x") },
	} {
		c := newContext(t, "prod")
		change(&c)
		if err := s.Create(c); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	if names, err := s.List(); err != nil || len(names) != 1 {
		t.Errorf("left behind: %q, %v", names, err)
	}
}

func TestArchive_IsWhatWasExported(t *testing.T) {
	c := newContext(t, "prod")
	var file bytes.Buffer
	if err := contexts.Export(&file, c); err != nil {
		t.Fatal(err)
	}
	got, err := contexts.Import(&file)
	if diff := cmp.Diff(c, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

// archive returns a tar of these entries.
func archive(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var file bytes.Buffer
	w := tar.NewWriter(&file)
	for _, h := range entries {
		data := []byte(`{"Name":"x"}`)
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(data))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write(data); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// What an archive says decides nothing but the context's content (X3).
func TestArchive_OfOthersIsRefused(t *testing.T) {
	for what, test := range map[string]struct {
		file []byte
		want string
	}{
		"nothing":         {nil, "it has no meta.json"},
		"no tar":          {bytes.Repeat([]byte("x"), 1024), "tar"},
		"another file":    {archive(t, tar.Header{Name: "meta.json"}, tar.Header{Name: "../.profile"}), `it has an entry "../.profile"`},
		"a link":          {archive(t, tar.Header{Name: "meta.json", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}), `it has an entry "meta.json"`},
		"a file twice":    {archive(t, tar.Header{Name: "meta.json"}, tar.Header{Name: "meta.json"}), `it has an entry "meta.json"`},
		"a cut-off entry": {archive(t, tar.Header{Name: "meta.json"})[:520], "EOF"},
	} {
		if _, err := contexts.Import(bytes.NewReader(test.file)); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzImport checks that whatever is imported is exported alike.
func FuzzImport(f *testing.F) {
	f.Add(archive(f, tar.Header{Name: "meta.json"}, tar.Header{Name: "ca.pem"}, tar.Header{Name: "key.pem"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := contexts.Import(bytes.NewReader(data))
		if err != nil {
			return
		}
		var file bytes.Buffer
		if err := contexts.Export(&file, c); err != nil {
			t.Fatal(err)
		}
		again, err := contexts.Import(&file)
		if err != nil || again.Name != c.Name || again.Host != c.Host || !bytes.Equal(again.TLS.Key, c.TLS.Key) {
			t.Errorf("%v: %+v became %+v", err, c, again)
		}
	})
}
