package authz

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestSocketCredentials_AskTheKernel runs this test again as other users, each of which connects once.
func TestSocketCredentials_AskTheKernel(t *testing.T) {
	if path := os.Getenv("AUTHZ_TEST_SOCKET"); path != "" {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Read(make([]byte, 1)) // until the server has looked
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become other users")
	}
	dir, err := os.MkdirTemp("", "authz") //nolint:usetesting // other users must get into it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "skep.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the test is over
	for _, p := range []string{dir, path} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	binary := copyOfTest(t, dir)
	const admins = 4242
	many := make([]uint32, 200)
	for i := range many {
		many[i] = uint32(5000 + i)
	}
	for name, c := range map[string]struct {
		cred  syscall.Credential
		group uint32
		want  bool
	}{
		"root":                    {syscall.Credential{}, NoGroup, true},
		"a user":                  {syscall.Credential{Uid: 1234, Gid: 1234}, admins, false},
		"no admin group":          {syscall.Credential{Uid: 1234, Gid: 1234}, NoGroup, false},
		"by primary group":        {syscall.Credential{Uid: 1234, Gid: admins}, admins, true},
		"by supplementary group":  {syscall.Credential{Uid: 1234, Gid: 1234, Groups: []uint32{7, admins}}, admins, true},
		"as one of many groups":   {syscall.Credential{Uid: 1234, Gid: 1234, Groups: append(many, admins)}, admins, true},
		"in many groups but that": {syscall.Credential{Uid: 1234, Gid: 1234, Groups: many}, admins, false},
		"root's group only":       {syscall.Credential{Uid: 1234, Gid: 0}, admins, false},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), binary, "-test.run=^"+"TestSocketCredentials_AskTheKernel"+"$")
			cmd.Env = append(os.Environ(), "AUTHZ_TEST_SOCKET="+path)
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &c.cred}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			_, info, err := SocketCredentials(c.group).ServerHandshake(conn)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
			got, ok := info.(SocketPeer)
			if !ok || got.Admin != c.want || got.UID != c.cred.Uid || got.PID != int32(cmd.Process.Pid) {
				t.Errorf("peer %+v, want admin %v", info, c.want)
			}
		})
	}
}

func TestSocketCredentials_RefuseOtherConnections(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close() //nolint:errcheck // the test is over
	if _, _, err := SocketCredentials(NoGroup).ServerHandshake(a); err == nil {
		t.Error("a pipe passed for a unix socket")
	}
	if _, _, err := SocketCredentials(NoGroup).ClientHandshake(t.Context(), "", a); err == nil {
		t.Error("credentials of a server served a client")
	}
}

// copyOfTest puts the test's binary where other users can run it.
func copyOfTest(t *testing.T, dir string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "test")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
