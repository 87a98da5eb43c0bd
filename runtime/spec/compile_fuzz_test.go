package spec

import (
	"encoding/json"
	"path"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/cgroup"
)

// FuzzCompile holds that no configuration panics the compiler, and that the invariants hold of every plan.
func FuzzCompile(f *testing.F) {
	seed, err := json.Marshal(base(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"process":{"args":["x"],"cwd":"/.."},"linux":{"uidMappings":[{"hostID":1,"size":4294967295}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &specs.Spec{}
		if len(data) > 1<<18 || json.Unmarshal(data, s) != nil {
			return
		}
		if b, err := CompileBundle(s, "amd64"); err == nil {
			checkBundle(t, b)
		}
		p, err := Compile(s, "amd64")
		if err != nil {
			return
		}
		for _, r := range append(p.UIDs, p.GIDs...) { // I2
			if r.Host == 0 || r.Host+r.Size < r.Host {
				t.Fatalf("range %+v", r)
			}
		}
		for _, m := range p.Mounts { // I3, I4
			if m.Type == "cgroup" && m.Target == cgroupTarget && m.Attr&unix.MOUNT_ATTR_RDONLY != 0 { // I7
				continue
			}
			if m.Target == "proc" && m.Type != "proc" || // I8
				m.Target == "." || path.Clean("/"+m.Target) != "/"+m.Target || strings.HasPrefix(m.Target, "proc/") ||
				m.Type != "devpts" && m.Attr&unix.MOUNT_ATTR_NODEV == 0 {
				t.Fatalf("mount %+v", m)
			}
		}
		for _, d := range p.Devices { // I9
			if !strings.HasPrefix(d.Target, "dev/") || d.Type != unix.S_IFCHR && d.Type != unix.S_IFBLK {
				t.Fatalf("device %+v", d)
			}
		}
		for _, r := range p.Limits.Devices {
			if !r.Allow || r.Type == 'a' || strings.Contains(r.Access, "m") || r.Major == cgroup.AnyDevice {
				t.Fatalf("device rule %+v", r)
			}
		}
		c := p.Process.Capabilities // I5
		if (c.Effective|c.Permitted|c.Inheritable|c.Ambient)&^c.Bounding != 0 || c.Bounding>>41 != 0 {
			t.Fatalf("capabilities %+v", c)
		}
		if strings.ContainsRune(strings.Join(append(p.Process.Args, p.Process.Env...), ""), 0) { // I6
			t.Fatal("a NUL byte")
		}
	})
}

func checkBundle(t *testing.T, p *Plan) {
	t.Helper()
	for _, m := range p.Mounts {
		if m.Target == "." || path.Clean("/"+m.Target) != "/"+m.Target {
			t.Fatalf("mount %+v", m)
		}
	}
	c := p.Process.Capabilities // I5
	if (c.Effective|c.Permitted|c.Inheritable|c.Ambient)&^c.Bounding != 0 {
		t.Fatalf("capabilities %+v", c)
	}
	if strings.ContainsRune(strings.Join(append(p.Process.Args, p.Process.Env...), ""), 0) { // I6
		t.Fatal("a NUL byte")
	}
}
