package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/runtime/spec"
)

// leastChecks is how many checks have to pass: fewer would mean that the program gave up.
const leastChecks = 325

// TestOCI_PassesTheSpecificationsOwnTest runs runtimetest of the Open Container Initiative inside a container: it compares
// what it finds with the configuration.
func TestOCI_PassesTheSpecificationsOwnTest(t *testing.T) {
	e := newEngine(t)
	e.prepareInventory()
	rootfs := filepath.Join(e.bundle, "rootfs")
	build := exec.Command("go", "build", "-o", filepath.Join(rootfs, "runtimetest"), "github.com/opencontainers/runtime-tools/cmd/runtimetest")
	build.Dir, build.Env = "../../tools/runtimetest", append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Skipf("needs the modules of tools/runtimetest: %v: %s", err, text)
	}
	e.configure("", everything(t))
	text, err := os.ReadFile(e.bundle + "/config.json")
	if err == nil {
		err = os.WriteFile(rootfs+"/config.json", text, 0o644) // where it looks for it
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd, _ := e.command("run", "c")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s%s", err, out.String(), errs.String())
	}
	passed := 0
	for line := range strings.Lines(out.String()) {
		switch {
		case strings.HasPrefix(line, "ok "):
			passed++
		case strings.HasPrefix(line, "not ok "):
			t.Error(strings.TrimSpace(line))
		}
	}
	t.Logf("%d checks passed", passed)
	if passed < leastChecks || !strings.Contains(out.String(), "\n1..") {
		t.Errorf("%d checks passed, want %d at least and a plan: %s", passed, leastChecks, errs.String())
	}
}

// everything asks for one of each that runtimetest can check, in the version of the specification that it knows. Control groups are
// not among it: on v1 it takes the directory of their mounts for a missing mount, also with runc.
func everything(t *testing.T) func(*specs.Spec) {
	t.Helper()
	profile, err := spec.Default()
	if err != nil {
		t.Fatal(err)
	}
	exists := func(paths []string) []string { // it opens each
		return slices.DeleteFunc(slices.Clone(paths), func(p string) bool {
			_, err := os.Stat(p)
			return err != nil
		})
	}
	return func(s *specs.Spec) {
		own := []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
		score, mode, id := 100, os.FileMode(0o640), uint32(7)
		s.Version, s.Hostname, s.Root.Readonly = "1.0.2", "inside", true
		s.Process = &specs.Process{
			Args: []string{"/runtimetest", "--path=/"}, Cwd: "/tmp", Env: []string{"PATH=/bin", "A=b"}, NoNewPrivileges: true, OOMScoreAdj: &score,
			User:         specs.User{UID: 0, GID: 0, AdditionalGids: []uint32{5, 6}},
			Capabilities: &specs.LinuxCapabilities{Bounding: own, Effective: own, Permitted: own, Inheritable: own, Ambient: own},
			Rlimits: []specs.POSIXRlimit{
				{Type: "RLIMIT_NOFILE", Soft: 1000, Hard: 1000},
				{Type: "RLIMIT_CORE"},
				{Type: "RLIMIT_FSIZE", Soft: 1 << 30, Hard: 1 << 30},
				{Type: "RLIMIT_NPROC", Soft: 500, Hard: 500},
				{Type: "RLIMIT_STACK", Soft: 8 << 20, Hard: 8 << 20},
			},
		}
		s.Mounts = slices.DeleteFunc(profile.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" })
		s.Linux.Devices = []specs.LinuxDevice{
			{Path: "/dev/own", Type: "c", Major: 1, Minor: 3, FileMode: &mode, UID: &id, GID: &id},
			{Path: "/dev/pipe", Type: "p", FileMode: &mode, UID: &id, GID: &id},
		}
		for _, n := range []specs.LinuxNamespaceType{specs.IPCNamespace, specs.UTSNamespace} {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: n})
		}
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmax": "65536"}
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = exists(profile.Linux.MaskedPaths), exists(profile.Linux.ReadonlyPaths)
		s.Linux.Seccomp = profile.Linux.Seccomp
	}
}
