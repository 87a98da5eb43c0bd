package executor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// cdiFile is one file of a vendor, with a device called one whose edits are given as YAML.
func cdiFile(t *testing.T, edits string) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: only root's CDI files are believed")
	}
	dir = t.TempDir()
	text := fmt.Sprintf("cdiVersion: 1.1.0\nkind: vendor.com/widget\ncontainerEdits:\n  env: [ALL=yes]\ndevices:\n- name: one\n  containerEdits: %s\n"+
		"- name: two\n  containerEdits: {env: [TWO=yes]}\n", edits)
	if err := os.WriteFile(filepath.Join(dir, "vendor.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// withCDI compiles a container that has devices by a grant.
func withCDI(t *testing.T, dir string, pr *api.Privileges, grant *api.GrantSpec) (*specs.Spec, map[string]string, error) {
	t.Helper()
	task := newTask(&api.ContainerSpec{Privileges: pr})
	grant.Annotations = &api.Annotations{Name: "g"}
	task.Grants = []*api.Grant{{Spec: grant}}
	p := plan{
		task: task, image: ocispec.ImageConfig{Cmd: []string{"/x"}}, idBase: 1 << 28, cdi: []string{dir}, moved: map[string]string{},
		private: []string{"/private"},
	}
	s, err := compiled(t, p)
	return s, p.moved, err
}

func TestCDI_GivesWhatTheFileSays(t *testing.T) {
	dir := cdiFile(t, `{env: [ONE=yes], deviceNodes: [{path: /dev/widget0, hostPath: /dev/full, permissions: rm}, {path: /dev/net/x, hostPath: /dev/zero}],
    mounts: [{hostPath: /usr, containerPath: /opt/widget, options: [ro, rbind, noexec]}]}`)
	s, moved, err := withCDI(t, dir, nil, &api.GrantSpec{CdiDevices: []string{"vendor.com/widget=one", "vendor.com/widget=two"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ALL=yes", "ONE=yes", "TWO=yes"} {
		if !slices.Contains(s.Process.Env, want) {
			t.Errorf("%s is not in %q", want, s.Process.Env)
		}
	}
	if len(s.Linux.Devices) != 2 || moved["/dev/widget0"] != "/dev/full" || moved["/dev/net/x"] != "/dev/zero" {
		t.Errorf("devices %+v, from %v", s.Linux.Devices, moved)
	}
	if rules := s.Linux.Resources.Devices; len(rules) != 2 || rules[0].Access != "r" || *rules[0].Minor != 7 || rules[1].Access != "rw" {
		t.Errorf("rules %+v", rules)
	}
	m := s.Mounts[len(s.Mounts)-1]
	if m.Source != "/usr" || m.Destination != "/opt/widget" || !slices.Contains(m.Options, "ro") || !slices.Contains(m.Options, "noexec") ||
		!slices.Contains(m.Options, "nosuid") || !slices.Contains(m.Options, "nodev") {
		t.Errorf("mount %+v", m)
	}
}

// What can't be given is refused by its name, with what to do; nothing of a description is left out in silence.
// What a file says for all its devices is done once, and checked for each grant.
func TestCDI_SharesAFileBetweenGrants(t *testing.T) {
	dir := cdiFile(t, `{env: [ONE=yes]}`)
	file := filepath.Join(dir, "vendor.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for hooks, want := range map[string]string{"": "", "\n  hooks: [{hookName: poststop, path: /bin/hook}]": "it has hooks, such as /bin/hook"} {
		all := strings.Replace(string(text), "env: [ALL=yes]", "mounts: [{hostPath: /usr, containerPath: /opt/widget}]"+hooks, 1)
		if err := os.WriteFile(file, []byte(all), 0o644); err != nil {
			t.Fatal(err)
		}
		task := newTask(&api.ContainerSpec{})
		for i, device := range []string{"one", "two"} {
			task.Grants = append(task.Grants, &api.Grant{Spec: &api.GrantSpec{
				Annotations: &api.Annotations{Name: device}, CdiDevices: []string{"vendor.com/widget=" + device}, IgnoreCdiHooks: i == 0,
			}})
		}
		s, err := compiled(t, plan{
			task: task, image: ocispec.ImageConfig{Cmd: []string{"/x"}}, idBase: 1 << 28, cdi: []string{dir}, moved: map[string]string{}, private: []string{"/private"},
		})
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "grant two") {
				t.Errorf("with hooks that the second grant does not ignore: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		mounts := slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination != "/opt/widget" })
		if len(mounts) != 1 || !slices.Contains(s.Process.Env, "ONE=yes") || !slices.Contains(s.Process.Env, "TWO=yes") {
			t.Errorf("mounts %+v, environment %q", mounts, s.Process.Env)
		}
	}
}

func TestCDI_RefusesWhatItDoesNotDo(t *testing.T) {
	const device = "vendor.com/widget=one"
	for edits, want := range map[string]string{
		`{hooks: [{hookName: createContainer, path: /bin/true}]}`:       "it has hooks, such as /bin/true, which would be run as root of this node",
		`{deviceNodes: [{path: /dev/widget0, hostPath: /dev/nothere}]}`: "this node has no device /dev/nothere",
		`{deviceNodes: [{path: /dev/widget0, hostPath: /etc/passwd}]}`:  "/etc/passwd of this node is no device",
		`{additionalGids: [44]}`:                                           "groups of this node ([44])",
		`{netDevices: [{hostInterfaceName: eth0, name: eth0}]}`:            "netDevices or intelRdt",
		`{mounts: [{hostPath: /usr, containerPath: /proc/x}]}`:             "would hide what isolates",
		`{mounts: [{hostPath: /usr, containerPath: /run/skep/identity}]}`:  "would hide what isolates or identifies",
		`{mounts: [{hostPath: /usr, containerPath: /x, options: [suid]}]}`: "option suid is not offered",
		`{mounts: [{hostPath: tmpfs, containerPath: /x, type: tmpfs}]}`:    "type tmpfs is not bind",
		`{mounts: [{hostPath: /nothere, containerPath: /x}]}`:              "this node has no /nothere",
		`{mounts: [{hostPath: /proc/self/root/etc, containerPath: /x}]}`:   "is a symbolic link",
	} {
		_, _, err := withCDI(t, cdiFile(t, edits), nil, &api.GrantSpec{CdiDevices: []string{device}})
		if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "grant g: CDI device "+device) {
			t.Errorf("%s: got %v, want %q", edits, err, want)
		}
	}
	hooked := cdiFile(t, `{env: [ONE=yes], hooks: [{hookName: createContainer, path: /bin/true}]}`)
	s, _, err := withCDI(t, hooked, nil, &api.GrantSpec{CdiDevices: []string{device}, IgnoreCdiHooks: true})
	if err != nil || !slices.Contains(s.Process.Env, "ONE=yes") || s.Hooks != nil {
		t.Errorf("without its hooks: %v", err)
	}
	grouped := cdiFile(t, `{additionalGids: [44]}`)
	s, _, err = withCDI(t, grouped, &api.Privileges{Userns: api.UsernsMode_USERNS_MODE_HOST}, &api.GrantSpec{CdiDevices: []string{device}})
	if err != nil || !slices.Equal(s.Process.User.AdditionalGids, []uint32{44}) {
		t.Errorf("with the node's groups: %v", err)
	}
}

func TestCDI_SaysWhatANodeHas(t *testing.T) {
	dir := cdiFile(t, `{env: [ONE=yes]}`)
	grant := &api.GrantSpec{CdiDevices: []string{"vendor.com/widget=three"}}
	_, _, err := withCDI(t, dir, nil, grant)
	want := "this node has no CDI device vendor.com/widget=three: " + dir + " have vendor.com/widget=one, vendor.com/widget=two; give the grant a --node-label"
	if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	if err := os.WriteFile(filepath.Join(dir, "broken.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err = withCDI(t, dir, nil, grant); err == nil || !strings.Contains(err.Error(), "broken.json can't be read") {
		t.Errorf("got %v", err)
	}
	grant.CdiDevices = []string{"vendor.com/widget=one"}
	if err := os.Chmod(filepath.Join(dir, "vendor.yaml"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, _, err = withCDI(t, dir, nil, grant); err == nil || !strings.Contains(err.Error(), "can be written to by others than root (owner 0, mode 0666)") {
		t.Errorf("got %v", err)
	}
}
