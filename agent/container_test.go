package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/skep-io/skep/agent/executor"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// canary is a secret that must be found nowhere but in its container.
const canary = "c4n4ry-5c1e1f"

func newTask(id string, args ...string) *api.Task {
	return &api.Task{
		Id: id, ServiceId: "s1", ServiceName: "web", Slot: 2, NodeId: "n1", DesiredState: api.TaskState_TASK_STATE_RUNNING,
		Spec: &api.TaskSpec{Container: &api.ContainerSpec{Image: probeImage, Args: args}},
	}
}

// run runs a task to its end and returns its exit status and output.
func (m *machine) run(t *testing.T, tk *api.Task) (*api.ContainerStatus, string) {
	t.Helper()
	m.start(t, tk)
	return m.finish(t, tk.GetId())
}

func (m *machine) start(t *testing.T, tk *api.Task) *api.ContainerStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := m.exec.Prepare(ctx, tk); err != nil {
		t.Fatal(err)
	}
	c, err := m.exec.Start(ctx, tk)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (m *machine) finish(t *testing.T, id string) (*api.ContainerStatus, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := m.exec.Wait(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return c, m.output(t, id, "")
}

// adopted returns a machine whose executor is ready for tasks.
func adopted(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t)
	if _, _, err := m.exec.Adopt(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return m
}

func contains(t *testing.T, out string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains(out, l) {
			t.Errorf("no %q in the output:\n%s", l, out)
		}
	}
}

func TestContainer_HasItsEnvironmentAndFiles(t *testing.T) {
	m := adopted(t)
	tk := newTask("t1", "env")
	tk.Spec.Container.Env = []string{"K=V"}
	tk.Spec.Container.User = "app"
	tk.Spec.Container.ReadOnly = true
	c, out := m.run(t, tk)
	if c.GetExitCode() != 0 {
		t.Errorf("exit code %d", c.GetExitCode())
	}
	contains(t, out, "FROM=image\n", "K=V\n", "HOSTNAME=t1\n", "SKEP_NODE_ID=n1\n", "SKEP_TASK_NAME=web.2.t1\n", "uid=1000 gid=1000")

	tk = newTask("t2", "show", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
	tk.Spec.Container.Hostname = "db"
	started := m.start(t, tk)
	_, out = m.finish(t, "t2")
	contains(t, out, started.GetAddress()+"\tdb\n", "/etc/hostname -rw-r--r-- 0:0\ndb\n", "/etc/resolv.conf -rw-r--r-- 0:0")
}

// Templates are filled in on the node; what can't be is the service's mistake, and no try again.
func TestContainer_TemplatesAreFilledIn(t *testing.T) {
	m := adopted(t)
	m.secrets.Put("x1", 1, []byte(canary))
	m.secrets.Put("x2", 1, []byte(`{{secret "db"}}|{{secret "old"}}|{{config "site"}}|{{env "K"}}|{{.Service.Labels.tier}}`))
	m.secrets.Put("x3", 1, []byte("listen 80;"))
	make := func(id string, args ...string) *api.Task {
		tk := newTask(id, args...)
		tk.Spec.Container.Hostname = "{{.Service.Name}}-{{.Task.Slot}}"
		tk.Spec.Container.Env = []string{"K=on {{.Node.ID}}"}
		tk.Spec.Container.ServiceLabels = map[string]string{"tier": "front"}
		tk.Spec.Container.Secrets = []*api.SecretReference{
			{SecretId: "x1", SecretName: "password", Target: &api.SecretTarget{Name: "db"}},
			{SecretId: "x1", SecretName: "old"},
			{SecretId: "x2", SecretName: "all", Template: true},
			{SecretId: "x3", SecretName: "site", Config: true, Target: &api.SecretTarget{Name: "/site"}},
		}
		return tk
	}
	tk := make("t1", "show", "/run/secrets/all", "/site", "/etc/hostname")
	_, out := m.run(t, tk)
	contains(t, out, "\n"+canary+"|"+canary+"|listen 80;|on n1|front", "/site -r--r--r-- 0:0\nlisten 80;", "\nweb-2\n")
	if tk.GetSpec().GetContainer().GetHostname() != "{{.Service.Name}}-{{.Task.Slot}}" {
		t.Error("the task was changed")
	}
	for text, want := range map[string]string{
		`{{secret "none"}}`:           "secret all: template: the service has no secret none",
		`{{config "db"}}`:             "the service has no config db",
		`{{secret "all"}}`:            "secret all is a template itself",
		`{{.Service.Labels.missing}}`: `no entry for key "missing"`,
	} {
		m.secrets.Put("x2", 1, []byte(text))
		err := m.exec.Prepare(t.Context(), make("t2", "true"))
		if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: got %v", text, err)
		}
	}
	tk = make("t3", "true")
	tk.Spec.Container.Hostname = "{{.Node.ID}} "
	if err := m.exec.Prepare(t.Context(), tk); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a bad host name: %v", err)
	}
}

func TestContainer_SecretsAreInMemoryOnly(t *testing.T) {
	m := adopted(t)
	tk := newTask("t1", "show", "/run/secrets/db", "/run/secrets/key", "/etc/app/key", "/etc/passwd", "/proc/self/mounts")
	tk.Spec.Container.ReadOnly = true
	tk.Spec.Container.Secrets = []*api.SecretReference{
		{SecretId: "x1", SecretName: "db"},
		{SecretId: "x2", SecretName: "tls", Target: &api.SecretTarget{Name: "key", Uid: 1000, Gid: 1001, Mode: 0o400}},
		{SecretId: "x2", SecretName: "tls", Target: &api.SecretTarget{Name: "/etc/app/key"}},
	}
	if err := m.exec.Prepare(t.Context(), tk); err != nil {
		t.Fatal(err)
	}
	if _, err := m.exec.Start(t.Context(), tk); fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "db, tls, tls") {
		t.Errorf("without its secrets: %v", err)
	}
	m.secrets.Put("x1", 1, []byte(canary+"\n"))
	m.secrets.Put("x2", 1, []byte("two"))
	if _, err := m.exec.Start(t.Context(), tk); err != nil {
		t.Fatal(err)
	}
	_, out := m.finish(t, "t1")
	contains(t, out, "/run/secrets/db -r--r--r-- 0:0\n"+canary, "/run/secrets/key -r-------- 1000:1001\ntwo", "/etc/app/key -r--r--r-- 0:0\ntwo",
		"app:x:1000")
	for _, l := range strings.Split(out, "\n") {
		if f := strings.Fields(l); len(f) > 3 && f[1] == "/run/secrets" && (f[2] != "tmpfs" && f[2] != "ramfs" || !strings.HasPrefix(f[3], "ro")) {
			t.Errorf("E3: secrets are on %s", l)
		}
	}
	if err := os.RemoveAll(filepath.Join(m.dir, "containers", "t1", logName(t, m, "t1"))); err != nil {
		t.Fatal(err)
	}
	for _, path := range findText(t, m.dir, canary) {
		t.Errorf("E3: the secret is in %s", path)
	}
}

func TestContainer_HasItsIdentityInMemoryOnly(t *testing.T) {
	m := adopted(t)
	const dir = "/run/skep/identity/"
	for _, user := range []string{"", "app"} {
		tk := newTask("t1"+user, "show", dir+"svid.pem", dir+"svid_key.pem", dir+"bundle.pem", dir+"current/svid.pem", "/proc/self/mounts")
		tk.Spec.Container.ReadOnly, tk.Spec.Container.User = true, user
		_, out := m.run(t, tk)
		owner := map[string]string{"": "0:0", "app": "1000:1000"}[user]
		contains(t, out, dir+"svid.pem -r--r--r-- "+owner+"\n-----BEGIN CERTIFICATE-----",
			dir+"svid_key.pem -r-------- "+owner+"\n-----BEGIN PRIVATE KEY-----",
			dir+"bundle.pem -r--r--r-- "+owner+"\n"+string(m.ca.root.CertificatePEM()))
		if !regexp.MustCompile(`(?m)^\S+ /run/skep/identity (tmpfs|ramfs) ro,(context="[^"]+",)?nosuid,nodev,noexec`).MatchString(out) {
			t.Errorf("W1: no read-only file system in memory:\n%s", out)
		}
		if c, out := m.run(t, newTask("t2"+user, "dial", dir+"workload.sock")); c.GetExitCode() != 0 {
			t.Errorf("the socket, as %q: %s", user, out)
		}
	}
	_, out := m.run(t, newTask("t3", "env"))
	contains(t, out, "SPIFFE_ENDPOINT_SOCKET=unix://"+dir+"workload.sock\n")
	own := newTask("t4", "env")
	own.Spec.Container.Env = []string{"SPIFFE_ENDPOINT_SOCKET=unix:///mine"}
	_, out = m.run(t, own)
	contains(t, out, "SPIFFE_ENDPOINT_SOCKET=unix:///mine\n")
	for _, id := range []string{"t1", "t2", "t1app", "t2app", "t3", "t4"} {
		if err := m.exec.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if left := m.leftovers(t, "t1"); len(left) > 0 {
		t.Errorf("I15: left behind: %q", left)
	}
}

func TestContainer_KeepsItsIdentityAcrossARestartOfTheDaemon(t *testing.T) {
	m := adopted(t)
	m.start(t, newTask("t1", "serve"))
	m.ready(t, "t1")
	svid := filepath.Join(m.dir, "identity", "t1", "svid.pem")
	before, err := os.ReadFile(svid)
	if err != nil {
		t.Fatal(err)
	}
	m.restart(t)
	if _, _, err := m.exec.Adopt(t.Context(), []string{"t1"}); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(svid)
	if err != nil || !bytes.Equal(after, before) {
		t.Errorf("another SVID, or %v", err)
	}
	conn, err := net.Dial("unix", filepath.Join(m.dir, "identity", "t1", "workload.sock"))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// logName returns the base name of a task's log.
func logName(t *testing.T, m *machine, id string) string {
	t.Helper()
	path, err := m.exec.LogPath(id)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(path)
}

// findText returns the files below a directory that contain a text.
func findText(t *testing.T, dir, text string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), text) {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestContainer_IsBounded(t *testing.T) {
	m := adopted(t)
	tk := newTask("t1", "fill")
	tk.Spec.Resources = &api.ResourceRequirements{Limits: &api.Resources{MemoryBytes: 32 << 20}}
	if c, _ := m.run(t, tk); c.GetExitCode() != 137 || !c.GetOomKilled() {
		t.Errorf("exit code %d, out of memory %v", c.GetExitCode(), c.GetOomKilled())
	}
}

func TestContainer_TellsMistakesOfTheUser(t *testing.T) {
	m := adopted(t)
	tests := []struct {
		name   string
		change func(*api.ContainerSpec)
		want   string
	}{
		{"unknown image", func(c *api.ContainerSpec) { c.Image = "none:1" }, "No such image: none:1"},
		{"no such program", func(c *api.ContainerSpec) { c.Command = []string{"/none"} }, "/none"},
		{"no such user", func(c *api.ContainerSpec) { c.User = "nobody" }, "/etc/passwd"},
		{"a mount over its identity", func(c *api.ContainerSpec) {
			c.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_TMPFS, Target: "/run/skep/identity"}}
		}, "would hide the task's identity"},
		{"no such capability", func(c *api.ContainerSpec) { c.CapabilityDrop = []string{"FLY"} }, "FLY"},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			id := fmt.Sprintf("t%d", i)
			tk := newTask(id, "exit", "0")
			test.change(tk.Spec.Container)
			err := m.exec.Prepare(t.Context(), tk)
			if err == nil {
				_, err = m.exec.Start(t.Context(), tk)
			}
			if err == nil || fault.KindOf(err) == fault.Unavailable || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if err := m.exec.Remove(t.Context(), id); err != nil {
				t.Error(err)
			}
			if left := m.leftovers(t, id); len(left) > 0 {
				t.Errorf("I15: left behind: %q", left)
			}
		})
	}
}

func TestContainer_PublishesItsPort(t *testing.T) {
	m := adopted(t)
	if err := setLoopbackUp(); err != nil {
		t.Fatal(err)
	}
	tk := newTask("t1", "listen", ":80")
	tk.Endpoint = &api.EndpointSpec{Ports: []*api.PortConfig{{TargetPort: 80, PublishedPort: 8080, PublishMode: api.PublishMode_PUBLISH_MODE_HOST}}}
	server := m.start(t, tk)
	m.ready(t, "t1")
	for _, address := range []string{"127.0.0.1:8080", server.GetAddress() + ":80"} {
		conn, err := net.DialTimeout("tcp4", address, patience)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		_ = conn.Close()
	}
	c, out := m.run(t, newTask("t2", "dial", server.GetAddress()+":80"))
	if c.GetExitCode() != 0 {
		t.Errorf("container to container: %s", out)
	}
	second := newTask("t3", "listen", ":80")
	second.Endpoint = tk.Endpoint
	if err := m.exec.Prepare(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if _, err := m.exec.Start(t.Context(), second); fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "8080/tcp") {
		t.Errorf("I12: the same port again: %v", err)
	}
}

// An agent that ends while it starts a container takes that back when it hears no events any more. What it had killed and could not delete was the
// next agent's, as a task that had failed with 137.
func TestSupervisor_DeletesWhatRunsWithoutHearingEvents(t *testing.T) {
	m := adopted(t)
	m.start(t, newTask("t1", "serve"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	deaf := executor.NewSupervisor(m.client, discard())
	if err := deaf.Delete(ctx, "t1"); err != nil {
		t.Fatal(err)
	}
	if states, err := deaf.List(ctx); err != nil || len(states) > 0 {
		t.Errorf("left: %v, %v", states, err)
	}
}
