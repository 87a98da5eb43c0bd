package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMain lets the test binary be the child that forks starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "--sleeper" {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// root makes a directory with the files, by path and content.
func root(t *testing.T, files map[string]string) machine {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return machine{dir}
}

func lines(text string) map[string]string {
	values := map[string]string{}
	for l := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(l), ": ")
		values[key] = value
	}
	return values
}

func TestReport_SaysWhatItSees(t *testing.T) {
	t.Setenv("SKEP_TASK_ID", "t1")
	m := root(t, map[string]string{
		"proc/self/status":  "Name:\tx\nCapEff:\t0000000000000401\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n",
		"proc/self/uid_map": "         0     100000      65536\n         70000          7          1\n",
		"run/secrets/db":    "hunter2",
	})
	if err := os.MkdirAll(m.path("proc/self/ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("net:[4026531840]", m.path("proc/self/ns/net")); err != nil {
		t.Fatal(err)
	}
	text := report(m)
	got := lines(text)
	for key, want := range map[string]string{
		"cap_eff": "0000000000000401 chown,net_bind_service", "cap_bnd": "0000000000000000 none", "no_new_privs": "1",
		"seccomp": "2 (filter)", "uid_map": "0 100000 65536, 70000 7 1", "gid_map": notVisible, "namespace.net": "4026531840",
		"namespace.pid": notVisible, "env.SKEP_TASK_ID": "t1", "limit.memory": notVisible,
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
	if strings.Contains(text, "hunter2") {
		t.Error("the report contains the secret")
	}
	want := fmt.Sprintf("sha256:%x mode 0640 owner %d:%d on ", sha256.Sum256([]byte("hunter2")), os.Getuid(), os.Getgid())
	if !strings.HasPrefix(got["secret.db"], want) {
		t.Errorf("secret.db is %q, want %q", got["secret.db"], want)
	}
}

func TestLimits(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		want  [3]string
	}{
		"version 2": {map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cgroup.procs": "1", "sys/fs/cgroup/memory.max": "67108864\n",
			"sys/fs/cgroup/cpu.max": "50000 100000\n", "sys/fs/cgroup/pids.max": "max\n",
		}, [3]string{"67108864", "0.5", "none"}},
		"version 1": {map[string]string{
			"proc/self/cgroup":       "5:memory:/a/b\n4:cpu,cpuacct:/\n3:pids:/p\n0::/\n",
			"sys/fs/cgroup/memory/x": "", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
			"sys/fs/cgroup/pids/p/tasks": "1", "sys/fs/cgroup/pids/p/pids.max": "100",
			"sys/fs/cgroup/cpu,cpuacct/tasks": "1", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
		}, [3]string{"none", "1.5", "100"}},
		"nothing": {nil, [3]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			memory, cpu, pids := root(t, tt.files).limits()
			if diff := cmp.Diff(tt.want, [3]string{memory, cpu, pids}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParse(t *testing.T) {
	o, err := parse([]string{"--listen", "off", "--every", "1s", "--exit", "3", "--after", "2s", "--fill-memory", "64m", "--forks", "5"}, io.Discard)
	want := options{listen: "off", every: time.Second, exit: 3, after: 2 * time.Second, fillMemory: 64 << 20, forks: 5}
	if diff := cmp.Diff(want, o, cmp.AllowUnexported(options{})); err != nil || diff != "" {
		t.Errorf("parse: %v (-want +got):\n%s", err, diff)
	}
	for _, args := range [][]string{
		{"x"}, {"--exit", "256"}, {"--forks", "10001"}, {"--fill-memory", "17G"}, {"--fill-memory", "lots"}, {"--fill-memory", "-1"}, {"--after", "-1s"}, {"--unknown"},
	} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("parse(%q) succeeded", args)
		}
	}
	t.Setenv("SKEP_HELLO_LISTEN", "off")
	if o, err := parse(nil, io.Discard); err != nil || o.listen != "off" {
		t.Errorf("SKEP_HELLO_LISTEN=off: %+v, %v", o, err)
	}
}

func TestWait_TicksAndExits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		code := wait(t.Context(), &out, options{every: time.Minute, after: 150 * time.Second, exit: 9}, time.Now())
		if want := "tick: 1, up 1m0s\ntick: 2, up 2m0s\nexit: 9, after 2m30s\n"; code != 9 || out.String() != want {
			t.Errorf("wait = %d, %q, want 9, %q", code, out.String(), want)
		}
	})
}

func TestWait_EndsWellOnASignal(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if code := wait(ctx, io.Discard, options{exit: 9, after: time.Hour}, time.Now()); code != 0 {
		t.Errorf("wait = %d, want 0", code)
	}
}

func TestServe_GivesTheReport(t *testing.T) {
	var out bytes.Buffer
	closeServer, err := serve(&out, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer closeServer()
	address := strings.TrimSpace(strings.TrimPrefix(out.String(), "http: serving on "))
	resp, err := http.Get("http://" + address + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || lines(string(body))["pid"] != fmt.Sprint(os.Getpid()) {
		t.Errorf("got %q, %v", body, err)
	}
	if _, err := serve(io.Discard, address); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("serve on a taken address = %v, want advice", err)
	}
}

func TestMisbehave_IsBoundedAndEnds(t *testing.T) {
	var out bytes.Buffer
	forks(&out, 3)()
	fillMemory(&out, 20<<20)()
	if want := "forks: 3 of 3\nfill-memory: 16777216 of 20971520 bytes\nfill-memory: 20971520 of 20971520 bytes\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
