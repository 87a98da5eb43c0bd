package agent_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
)

// offlineFile is where the sealed secrets of a task are.
func (n *node) offlineFile(task string) string {
	return filepath.Join(n.dir, "agent", "offline", task)
}

// awaitFile waits until there is a file, or none.
func (n *node) awaitFile(path string, there bool) {
	n.t.Helper()
	await(n.t, fmt.Sprintf("%s is there: %v", path, !there), func() bool {
		_, err := os.Stat(path)
		return (err == nil) == there
	})
}

// awaitWaiting waits until a task can't be started again for a reason.
func (n *node) awaitWaiting(task, reason string) {
	n.t.Helper()
	await(n.t, task+" does not wait because of "+reason, func() bool {
		return slices.ContainsFunc(n.agent.Waiting(), func(s string) bool { return strings.Contains(s, "task "+task+":") && strings.Contains(s, reason) })
	})
}

// renew gives the node another key and certificate, and waits until what it keeps of a task is sealed by that.
func (n *node) renew() {
	n.t.Helper()
	before, err := os.ReadFile(n.offlineFile("keeps"))
	if err != nil {
		n.t.Fatal(err)
	}
	cluster, err := n.m.registry.Cluster(n.t.Context())
	if err == nil {
		err = n.identity.Replace(catest.Credentials(n.t, cluster.Root, n.identity.Current().Name(), ca.DefaultLife))
	}
	if err != nil {
		n.t.Fatal(err)
	}
	await(n.t, "the sealed file is the one of before", func() bool {
		now, err := os.ReadFile(n.offlineFile("keeps"))
		return err == nil && !bytes.Equal(now, before)
	})
}

// secretTask returns a task with a secret of its own, and what a manager says of both.
func (n *node) secretTask(id string, keeps bool) (*api.Task, []*api.AssignmentChange) {
	t := n.task(id, "serve")
	t.Spec.Container.Secrets = []*api.SecretReference{{SecretId: "x-" + id, SecretName: "db-" + id}}
	t.Spec.Container.SecretOffline = keeps
	return t, []*api.AssignmentChange{update(t), {
		Action: api.AssignmentAction_ASSIGNMENT_ACTION_UPDATE,
		Object: &api.AssignmentChange_Secret{Secret: &api.Secret{Id: "x-" + id, Version: 1, Spec: &api.SecretSpec{Data: []byte(canary)}}},
	}}
}

// A task of a service that keeps its secrets on its nodes runs again without a manager; others say what they wait for. The values are nowhere in clear,
// and go with the task.
func TestAgent_KeepsSecretsOnTheDiskForServicesThatAskForIt(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m)
	keeps, changes := n.secretTask("keeps", true)
	_, forgets := n.secretTask("forgets", false)
	_, damaged := n.secretTask("damaged", true)
	m.assign(slices.Concat(changes, forgets, damaged)...)
	for _, id := range []string{"keeps", "forgets", "damaged"} {
		m.awaitStatus(t, id, "RUNNING")
	}
	n.awaitFile(n.offlineFile("keeps"), true)
	n.awaitFile(n.offlineFile("damaged"), true)
	if _, err := os.Stat(n.offlineFile("forgets")); err == nil || n.agent.OfflineTasks() != 2 {
		t.Errorf("the secrets of %d tasks are on the disk", n.agent.OfflineTasks())
	}
	for _, path := range findText(t, n.dir, canary) {
		t.Errorf("S1: the secret is in %s", path)
	}

	n.renew()
	n.reboot("keeps", "forgets", "damaged")
	n.cutOff()
	sealed, err := os.ReadFile(n.offlineFile("keeps"))
	if err != nil {
		t.Fatal(err)
	}
	// What another task has, and what a crash left of a file.
	for _, name := range []string{"damaged", ".keeps.tmp", "gone"} {
		if err := os.WriteFile(n.offlineFile(name), sealed, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.begin()
	pid := n.awaitRevived("keeps")
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/run/secrets/db-keeps", pid))
	if err != nil || string(data) != canary {
		t.Errorf("the task has %q, %v", data, err)
	}
	n.awaitWaiting("damaged", n.offlineFile("damaged")+": it does not open")
	n.awaitWaiting("forgets", "waiting for a manager to send secret db-forgets: its service keeps none on its nodes, as with --secret-offline")
	n.awaitFile(n.offlineFile(".keeps.tmp"), false)
	n.awaitFile(n.offlineFile("gone"), false)

	// A manager is back: the task that runs stays, the others are its to replace.
	n.end()
	m.forget()
	n.managers = []string{m.address}
	n.begin()
	m.awaitStatus(t, "damaged", "FAILED")
	m.awaitStatus(t, "forgets", "FAILED")
	if again := n.awaitRunning("keeps"); again != pid {
		t.Errorf("process %d is now %d", pid, again)
	}
	n.awaitFile(n.offlineFile("damaged"), false)
	keeps.DesiredState = api.TaskState_TASK_STATE_SHUTDOWN
	m.assign(update(keeps))
	m.awaitStatus(t, "keeps", "SHUTDOWN")
	n.awaitFile(n.offlineFile("keeps"), false)
	if got := n.agent.OfflineTasks(); got != 0 {
		t.Errorf("the secrets of %d tasks are on the disk", got)
	}
	for _, path := range findText(t, n.dir, canary) {
		t.Errorf("S1: the secret is in %s", path)
	}
}

// A node that was removed from the swarm has no secrets on its disk any more once it hears of that, and starts nothing by itself.
func TestAgent_ErasesSecretsWhenAManagerRefusesIt(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m)
	_, changes := n.secretTask("keeps", true)
	m.assign(changes...)
	m.awaitStatus(t, "keeps", "RUNNING")
	n.awaitFile(n.offlineFile("keeps"), true)
	n.end()
	m.mu.Lock()
	m.refused = true
	m.mu.Unlock()
	n.begin()
	n.awaitFile(n.offlineFile("keeps"), false)
}
