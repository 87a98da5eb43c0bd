package credential_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/seal/credential"
)

// need skips the test where a program is missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for systemd's host key")
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s: tools/setup/debian.sh installs it", program)
		}
	}
}

// roundTrip makes a credential and opens it, whole and damaged.
func roundTrip(t *testing.T, with credential.With) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek")
	key, err := credential.Create(t.Context(), path, with)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := credential.Open(t.Context(), path); err != nil || !got.Equal(key) || key.IsZero() {
		t.Errorf("open: %v", err)
	}
	text, err := os.ReadFile(path)
	if err != nil || bytes.Contains(text, key.Bytes()) {
		t.Errorf("the key lies in clear, or %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: %v, %v", info, err)
	}
	other, err := credential.Create(t.Context(), path+"2", with)
	if err != nil || other.Equal(key) {
		t.Errorf("another file has the same key, or %v", err)
	}
	damaged := bytes.Clone(text)
	damaged[len(damaged)/2] ^= 1
	if err := os.WriteFile(path+"3", damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := credential.Open(t.Context(), path+"3"); !errors.Is(err, credential.ErrCredential) || !strings.Contains(err.Error(), path+"3") {
		t.Errorf("a damaged file: %v", err)
	}
	return path
}

func TestHost(t *testing.T) {
	need(t, "systemd-creds")
	roundTrip(t, credential.Host)
}

// swtpm starts a TPM in software, and makes systemd-creds use it: the real one, told where the TPM is.
func swtpm(t *testing.T, real string) {
	t.Helper()
	dir := t.TempDir()
	socket, pidFile := filepath.Join(dir, "tpm"), filepath.Join(dir, "pid")
	out, err := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--flags", "startup-clear", "--daemon",
		"--pid", "file="+pidFile, "--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+socket+".ctrl").CombinedOutput()
	if err != nil {
		t.Fatalf("swtpm: %v: %s", err, out)
	}
	t.Cleanup(func() {
		text, err := os.ReadFile(pidFile)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err := errors.Join(err, syscall.Kill(pid, syscall.SIGTERM)); err != nil {
			t.Error(err)
		}
	})
	// What a run leaves in the TPM, /dev/tpmrm0 would clear away; else it is full after three.
	useTool(t, fmt.Sprintf("at=swtpm:path=%[2]s; tpm2_flushcontext -T $at -t && tpm2_flushcontext -T $at -l && exec %[1]s \"$@\" --tpm2-device=$at", real, socket))
}

func realTool(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("systemd-creds")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// useTool puts a script in the place of systemd-creds.
func useTool(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "systemd-creds"), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

// A credential of one TPM does not open on a machine with another.
func TestTPM2(t *testing.T) {
	need(t, "systemd-creds", "swtpm", "tpm2_flushcontext")
	real := realTool(t)
	swtpm(t, real)
	path := roundTrip(t, credential.TPM2)
	swtpm(t, real)
	if _, err := credential.Open(t.Context(), path); !errors.Is(err, credential.ErrCredential) {
		t.Errorf("another machine's TPM: %v", err)
	}
}

func TestService(t *testing.T) {
	dir := t.TempDir()
	if _, err := credential.Service(""); !errors.Is(err, credential.ErrCredential) || !strings.Contains(err.Error(), "LoadCredentialEncrypted=") {
		t.Errorf("no directory: %v", err)
	}
	if _, err := credential.Service(dir); !errors.Is(err, credential.ErrCredential) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
	key := seal.NewKey()
	for _, tt := range []struct {
		content []byte
		ok      bool
	}{{key.Bytes(), true}, {key.Bytes()[1:], false}, {append(key.Bytes(), '\n'), false}, {make([]byte, 1<<20), false}} {
		if err := os.WriteFile(filepath.Join(dir, credential.Name), tt.content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := credential.Service(dir)
		if tt.ok && (err != nil || !got.Equal(key)) || !tt.ok && !errors.Is(err, credential.ErrCredential) {
			t.Errorf("%d bytes: %v", len(tt.content), err)
		}
	}
}

// What systemd-creds says is in the error; what it gives is checked; and nothing is left of a key that could not be kept.
func TestTool_Failures(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"fails", "echo no TPM2 device >&2; exit 1", "systemd-creds encrypt: exit status 1: no TPM2 device"},
		{"gives nothing", "true", "a key has 32 bytes, not 0"},
		{"gives another key", "head -c 32 /dev/zero", "opens to something else"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			useTool(t, tt.script)
			path := filepath.Join(t.TempDir(), "kek")
			_, err := credential.Create(t.Context(), path, credential.TPM2)
			if !errors.Is(err, credential.ErrCredential) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a file is there: %v", err)
			}
		})
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := credential.Create(t.Context(), filepath.Join(t.TempDir(), "kek"), credential.Host); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("without systemd: %v", err)
	}
	if credential.HasTPM2(t.Context()) {
		t.Error("there is a TPM2 without systemd")
	}
}

// The key is never among what other processes see of systemd-creds: its arguments and environment.
func TestTool_SeesTheKeyOnItsInputOnly(t *testing.T) {
	need(t, "systemd-creds")
	seen := filepath.Join(t.TempDir(), "seen")
	useTool(t, fmt.Sprintf(`(echo "$@"; env) >>%s; exec %s "$@"`, seen, realTool(t)))
	key, err := credential.Create(t.Context(), filepath.Join(t.TempDir(), "kek"), credential.Host)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(seen)
	if err != nil || !bytes.Contains(text, []byte("--with-key=host")) {
		t.Fatalf("%s, %v", text, err)
	}
	if bytes.Contains(text, key.Bytes()) || bytes.Contains(text, fmt.Appendf(nil, "%x", key.Bytes())) {
		t.Error("the key shows")
	}
}
