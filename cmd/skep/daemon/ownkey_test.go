package daemon

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca/keyfile"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/seal/credential"
)

// withCredential gives a daemon the credential that a unit would.
func withCredential(t *testing.T, d *Daemon, key seal.Key) {
	t.Helper()
	d.own.credentials = t.TempDir()
	if err := os.WriteFile(filepath.Join(d.own.credentials, credential.Name), key.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func own(t *testing.T, d *Daemon, want seal.Source) seal.Key {
	t.Helper()
	key, source, err := d.own.get(t.Context())
	if err != nil || source != want || key.IsZero() {
		t.Fatalf("own key by %v, %v; want %v", source, err, want)
	}
	return key
}

func needSystemdCreds(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("systemd-creds"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and systemd-creds: tools/setup/debian.sh test installs it")
	}
}

func TestOwnKey_StaysTheSame(t *testing.T) {
	d := newTestDaemon(t)
	file := own(t, d, seal.SourceKeyFile)
	if !own(t, d, seal.SourceKeyFile).Equal(file) {
		t.Error("the key file has another key")
	}
	needSystemdCreds(t)
	d.own.provider = ProviderHost
	host := own(t, d, seal.SourceHostKey)
	if !own(t, d, seal.SourceHostKey).Equal(host) || host.Equal(file) {
		t.Error("the host's credential has another key, or the file's")
	}
	if err := d.own.keepOnly(seal.SourceHostKey); err != nil || d.own.has(seal.SourceKeyFile) || !d.own.has(seal.SourceHostKey) {
		t.Errorf("what is not used is still there: %v", err)
	}
	if err := d.disk.forget(); err != nil || d.own.has(seal.SourceHostKey) {
		t.Errorf("a node that left still has its key: %v", err)
	}
	if own(t, d, seal.SourceHostKey).Equal(host) {
		t.Error("a node that left has the key of before")
	}
}

func TestOwnKey_AutoNeverGoesBackToTheFile(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // no systemd-creds, thus no TPM2
	d := newTestDaemon(t)
	d.own.provider = ProviderAuto
	own(t, d, seal.SourceKeyFile)
	if err := os.WriteFile(d.disk.path(tpm2KeyFile), []byte("sealed by a TPM2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, source, err := d.own.get(t.Context()); source != seal.SourceTPM2 || !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("with the TPM2 gone: %v, %v", source, err)
	}
	withCredential(t, d, seal.NewKey())
	own(t, d, seal.SourceCredential)
}

// An error names the key, the reason and the way out.
func TestOwnKey_SaysWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	d := newTestDaemon(t)
	if err := os.WriteFile(d.disk.path(hostKeyFile), []byte("sealed"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		source seal.Source
		want   []string
	}{
		{seal.SourceKeyFile, []string{"key file", keyFile, "is not there", "put back the file", "swarm rejoin"}},
		{seal.SourceTPM2, []string{"TPM2", tpm2KeyFile, "is not there", "the TPM was cleared", "leave --force"}},
		{seal.SourceHostKey, []string{hostKeyFile, "systemd-creds", "credential.secret", "leave --force"}},
		{seal.SourceCredential, []string{"credential", "LoadCredentialEncrypted=", "leave --force"}},
		{99, []string{"another version", "leave --force"}},
	} {
		_, err := d.own.of(t.Context(), tt.source)
		if fault.KindOf(err) != fault.Precondition {
			t.Errorf("%v: kind %v of %v", tt.source, fault.KindOf(err), err)
		}
		for _, want := range append(tt.want, "restore a backup") {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %q is not in: %v", tt.source, want, err)
			}
		}
	}
	if err := d.own.fault(seal.SourceKeyFile, seal.ErrWrongKey); !lasting(err) {
		t.Errorf("another key file is tried again: %v", err)
	}
}

// A worker has no unlock key, and still keeps its key as its own provider says, whatever it was before.
func TestUnseal_WorkerChangesItsProvider(t *testing.T) {
	d := newTestDaemon(t)
	if err := openKeys(d.cfg.DataDir, nil).Save(managerCredentials(t)); err != nil {
		t.Fatal(err)
	}
	withCredential(t, d, seal.NewKey())
	restart := func(p KeyProvider, clear bool) {
		t.Helper()
		d.own.provider = p
		if _, err := d.unseal(t.Context(), 0, seal.Key{}); err != nil {
			t.Fatal(err)
		}
		inClear(t, d.cfg.DataDir, clear)
	}
	restart(ProviderFile, true)
	restart(ProviderCredential, false)
	if d.own.has(seal.SourceKeyFile) {
		t.Error("a key file is left")
	}
	restart(ProviderFile, true)
	restart(ProviderCredential, false)
	d.own.credentials = ""
	if _, err := d.unseal(t.Context(), 0, seal.Key{}); !errors.Is(err, keyfile.ErrLocked) {
		t.Errorf("without the credential: %v", err)
	}
}

// TestUnseal_NamesTheCredentialThatDoesNotOpen shows that a node whose own key is gone does not ask for an unlock key.
func TestUnseal_NamesTheCredentialThatDoesNotOpen(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	d := newTestDaemon(t)
	if err := openKeys(d.cfg.DataDir, holders{seal.NewKey()}).Save(managerCredentials(t)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.disk.path(tpm2KeyFile), []byte("sealed by a TPM2"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := d.unseal(t.Context(), 0, seal.Key{})
	if err == nil || errors.Is(err, keyfile.ErrLocked) || !strings.Contains(err.Error(), tpm2KeyFile) {
		t.Errorf("got %v", err)
	}
}

func TestKeyProtection_IsHonest(t *testing.T) {
	for source, want := range map[seal.Source]string{
		seal.SourceKeyFile: "protects nothing", seal.SourceUnlockKey: "waits for `skep swarm unlock`", seal.SourceTPM2: "whoever can start the machine",
		seal.SourceHostKey: "/var/lib/systemd", seal.SourceCredential: "what seals the credential",
	} {
		for _, manager := range []bool{true, false} {
			info := &api.GetInfoResponse{OfflineTasks: 2}
			describeKey(info, source, manager)
			if got := info.GetKeyProtection(); !strings.Contains(got, want) || !manager && strings.Contains(got, "--autolock") {
				t.Errorf("%v: %q is not in %q", source, want, got)
			}
			if warned := strings.Contains(strings.Join(info.GetWarnings(), ""), "who has the disk has them"); warned != (source == seal.SourceKeyFile) {
				t.Errorf("%v with secrets on the disk: warnings %q", source, info.GetWarnings())
			}
		}
	}
}

// holdsAny reports whether a file below dir has one of some texts.
func holdsAny(dir string, texts ...[]byte) (found bool, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		for _, text := range texts {
			found = found || bytes.Contains(content, text)
		}
		return err
	})
	return found, err
}
