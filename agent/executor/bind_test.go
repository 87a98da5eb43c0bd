package executor

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// binds compiles a task with bind mounts and what its one grant has, and gives the mounts of the node.
func binds(t *testing.T, mounts []*api.Mount, granted ...*api.GrantMount) ([]specs.Mount, error) {
	t.Helper()
	task := newTask(&api.ContainerSpec{Command: []string{"/x"}, Mounts: mounts})
	task.Grants = []*api.Grant{{Spec: &api.GrantSpec{Annotations: &api.Annotations{Name: "g"}, Mounts: granted}}}
	s, err := compiled(t, plan{task: task, idBase: 1 << 28})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type != "bind" }), nil
}

func TestBind_ShowsWhatIsGranted(t *testing.T) {
	const disabled, writable = api.BindRecursive_BIND_RECURSIVE_DISABLED, api.BindRecursive_BIND_RECURSIVE_WRITABLE
	srv := &api.GrantMount{Source: "/srv", Target: "/srv"}
	fixed := specs.Mount{Destination: "/srv", Type: "bind", Source: "/srv", Options: []string{"rbind", "nosuid", "nodev", "idmap", "X-skep.nolinks", "rprivate"}}
	shown := func(options ...string) specs.Mount {
		return specs.Mount{Destination: "/x", Type: "bind", Source: "/srv", Options: options}
	}
	for name, tt := range map[string]struct {
		mount *api.Mount
		want  specs.Mount
	}{
		"all":            {&api.Mount{Source: "/srv"}, shown("rbind", "nosuid", "nodev", "idmap", "X-skep.nolinks", "rprivate")},
		"all, read-only": {&api.Mount{Source: "/srv/", ReadOnly: true}, shown("rbind", "nosuid", "nodev", "idmap", "X-skep.nolinks", "rprivate", "ro", "rro")},
		"the top, read-only": {
			&api.Mount{Source: "/srv", ReadOnly: true, BindRecursive: writable}, shown("rbind", "nosuid", "nodev", "idmap", "X-skep.nolinks", "rprivate", "ro"),
		},
		"the top":      {&api.Mount{Source: "/srv", BindRecursive: disabled}, shown("bind", "nosuid", "nodev", "idmap", "X-skep.nolinks", "rprivate")},
		"a part":       {&api.Mount{Source: "/srv/a/../b"}, shown("rbind", "nosuid", "nodev", "idmap", "X-skep.nolinks", "rprivate", "X-mount.subdir=b")},
		"in its place": {&api.Mount{Source: "/srv", Target: "/srv", ReadOnly: true}, specs.Mount{}},
	} {
		t.Run(name, func(t *testing.T) {
			tt.mount.Type = api.MountType_MOUNT_TYPE_BIND
			want := []specs.Mount{tt.want, fixed}
			if tt.mount.GetTarget() != "" { // the service's word replaces the grant's
				m := fixed
				m.Options = append(slices.Clone(m.Options), "ro", "rro")
				want = []specs.Mount{m}
			} else {
				tt.mount.Target = "/x"
			}
			got, err := binds(t, []*api.Mount{tt.mount}, srv)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestBind_RefusesWhatIsNotGranted(t *testing.T) {
	const rslave, rshared, writable = api.MountPropagation_MOUNT_PROPAGATION_RSLAVE, api.MountPropagation_MOUNT_PROPAGATION_RSHARED, api.BindRecursive_BIND_RECURSIVE_WRITABLE
	for name, m := range map[string]*api.Mount{
		"another":                {Source: "/etc"},
		"the one above":          {Source: "/"},
		"out of it":              {Source: "/srv/../etc"},
		"a name that begins so":  {Source: "/srv2", ReadOnly: true},
		"to write":               {Source: "/srv"},
		"to write below":         {Source: "/srv", ReadOnly: true, BindRecursive: writable},
		"more of the node":       {Source: "/srv", ReadOnly: true, BindPropagation: rshared},
		"to be told by the node": {Source: "/srv", ReadOnly: true, BindPropagation: rslave},
	} {
		m.Type, m.Target = api.MountType_MOUNT_TYPE_BIND, "/x"
		_, err := binds(t, []*api.Mount{m}, &api.GrantMount{Source: "/srv", Target: "/srv", ReadOnly: true})
		if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "no grant of the task gives it") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// What is not there is a mistake that shows before anything is prepared. Links are not followed: whoever can make one learns nothing by it.
func TestBind_SaysWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(dir+"/there/below", 0o700), os.Symlink("/", dir+"/link"), os.Mkdir(dir+"/own", 0o700)); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{
		dir: "", dir + "/there/below": "", dir + "/link/etc": "", dir + "/link/nothere": "",
		dir + "/there/none": "bind source path does not exist: " + dir + "/there/none",
		dir + "/none/below": "bind source path does not exist: " + dir + "/none/below",
		dir + "/own/none":   dir + "/own/none of this node is of Skep itself",
		"/nothere/a":        "this node has no /nothere: make it",
		"/elsewhere":        "no grant of the task gives it",
	} {
		task := newTask(&api.ContainerSpec{Mounts: []*api.Mount{{Type: api.MountType_MOUNT_TYPE_BIND, Source: source, Target: "/x"}}})
		task.Grants = []*api.Grant{{Spec: &api.GrantSpec{Mounts: []*api.GrantMount{{Source: dir, Target: "/a"}, {Source: "/nothere", Target: "/b"}}}}}
		err := plan{task: task, private: []string{dir + "/own"}}.checkBinds()
		if want == "" && err != nil || want != "" && (fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", source, err, want)
		}
	}
}

// A mount that shares its events with no other tells nobody of them, and is told of none.
func TestBind_RefusesToShareWhatIsNotShared(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount")
	}
	dir := t.TempDir()
	if err := errors.Join(unix.Mount("skep-test", dir, "tmpfs", 0, "size=1m"), unix.Mount("", dir, "", unix.MS_PRIVATE, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	for how, shared := range map[api.MountPropagation]bool{
		api.MountPropagation_MOUNT_PROPAGATION_SLAVE: false, api.MountPropagation_MOUNT_PROPAGATION_RSHARED: false,
		api.MountPropagation_MOUNT_PROPAGATION_RSLAVE: true, api.MountPropagation_MOUNT_PROPAGATION_SHARED: true,
	} {
		flag := uintptr(unix.MS_PRIVATE)
		if shared {
			flag = unix.MS_SHARED
		}
		if err := unix.Mount("", dir, "", flag, ""); err != nil {
			t.Fatal(err)
		}
		_, err := binds(t, nil, &api.GrantMount{Source: dir, Target: "/x", Propagation: how})
		refused := fault.KindOf(err) == fault.Invalid && strings.Contains(err.Error(), "is not on a shared mount of this node")
		if shared && err != nil || !shared && !refused {
			t.Errorf("%v of a mount that is shared: %v: got %v", how, shared, err)
		}
	}
}
