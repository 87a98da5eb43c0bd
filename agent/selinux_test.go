package agent_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/runtime/lsm"
)

// labelOf is the label that a task reports, or "".
func labelOf(c *api.ContainerStatus) string {
	for _, one := range c.GetIsolation() {
		if label, ok := strings.CutPrefix(one, "selinux="); ok {
			return label
		}
	}
	return ""
}

// needSELinux skips where SELinux enforces no policy that knows containers.
func needSELinux(t *testing.T) {
	t.Helper()
	if !slices.Contains(lsm.Isolation(), lsm.SELinuxName) {
		t.Skip("needs a kernel in which SELinux enforces a policy with labels for containers; make e2e-vm has one")
	}
}

// Each task has categories that no other on the node has, as long as it is there, and across restarts of the daemon.
func TestSELinux_NoTwoTasksHaveOneLabel(t *testing.T) {
	needSELinux(t)
	m := adopted(t)
	ids, labels := []string{"t1", "t2", "t3"}, map[string]bool{}
	for _, id := range ids {
		labels[labelOf(m.start(t, newTask(id, "serve")))] = true
	}
	m.restart(t)
	if _, _, err := m.exec.Adopt(t.Context(), ids); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"t4", "t5"} {
		labels[labelOf(m.start(t, newTask(id, "serve")))] = true
	}
	if len(labels) != 5 || labels[""] {
		t.Errorf("5 tasks have the labels %v", labels)
	}
}

// What a service says of its label is so; and a task that is not confined, or by another type, reaches what others can't: that others do not
// is SELinux's doing.
func TestSELinux_LabelsAreWhatTheServiceSays(t *testing.T) {
	needSELinux(t)
	m := adopted(t)
	host := t.TempDir()
	if err := os.Chmod(host, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(host+"/f", []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(id string, context *api.SELinuxContext) (string, string) {
		tk := newTask(id, "show", "/host/f", "/proc/thread-self/attr/current")
		tk.Spec.Container.Privileges = &api.Privileges{SelinuxContext: context}
		tk.Grants = []*api.Grant{{Spec: &api.GrantSpec{Annotations: &api.Annotations{Name: "g"}, Mounts: []*api.GrantMount{{Source: host, Target: "/host"}}}}}
		c, out := m.run(t, tk)
		return labelOf(c), out
	}
	label, out := run("t1", nil)
	if !strings.HasPrefix(label, "system_u:system_r:container_t:s0:c") || !strings.Contains(out, label) || !strings.Contains(out, "/host/f: permission denied") {
		t.Errorf("by default: label %q, output %s", label, out)
	}
	label, out = run("t2", &api.SELinuxContext{Type: "web_t", Level: "s0:c1,c2"})
	if label != "system_u:system_r:web_t:s0:c1,c2" || !strings.Contains(out, label) || !strings.Contains(out, "of the host") {
		t.Errorf("another type: label %q, output %s", label, out)
	}
	label, out = run("t3", &api.SELinuxContext{Disable: true})
	if label != "" || !strings.Contains(out, "of the host") {
		t.Errorf("disabled: label %q, output %s", label, out)
	}
	tk := newTask("t4", "env")
	tk.Spec.Container.Privileges = &api.Privileges{SelinuxContext: &api.SELinuxContext{Type: "nobody_t"}}
	if err := m.exec.Prepare(t.Context(), tk); err == nil || !strings.Contains(err.Error(), "the SELinux policy has no label system_u:system_r:nobody_t:") {
		t.Errorf("a type of no policy: %v", err)
	}
}
