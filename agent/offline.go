package agent

import (
	"context"
	"path/filepath"
	"time"

	"github.com/skep-io/skep/agent/secret"
	"github.com/skep-io/skep/api"
)

// inMemory is why a secret of a service without --secret-offline isn't there after a restart of the machine.
const inMemory = "its service keeps none on its nodes, as with --secret-offline"

// sealAgain is the time after which it is tried again to keep or to erase what could not be, as when the disk was full.
const sealAgain = 30 * time.Second

func (a *Agent) newVault(dir string) (err error) {
	id := a.cfg.Identity
	// The node's own key: whatever protects that on the disk protects what it seals, and it changes with each renewal.
	key := func() ([]byte, error) { return id.Current().RevealKey().Bytes() }
	a.vault, err = secret.OpenVault(filepath.Join(dir, "offline"), id.NodeID(), key)
	return err
}

// offline reports whether a task's node keeps its secrets on the disk.
func offline(t *api.Task) bool {
	return t.GetSpec().GetContainer().GetSecretOffline() && t.GetDesiredState() <= api.TaskState_TASK_STATE_RUNNING
}

// secretsIn returns the ids of a task's secrets, configs among them.
func secretsIn(t *api.Task) []string {
	var ids []string
	for _, r := range t.GetSpec().GetContainer().GetSecrets() {
		ids = append(ids, r.GetSecretId())
	}
	return ids
}

// sealUp has keepSecrets look again. It doesn't block.
func (a *Agent) sealUp() { signal(a.seal) }

// keepSecrets seals the secrets of tasks whose services ask for that, and erases them as soon as a task is not to run any more. It begins with what a
// crash left.
func (a *Agent) keepSecrets(ctx context.Context) error {
	select {
	case <-a.tasks.Adopted():
	case <-ctx.Done():
		return nil
	}
	for {
		var again <-chan time.Time
		if !a.keepSecretsOnce() {
			again = time.After(sealAgain)
		}
		select {
		case <-a.seal:
		case <-again:
		case <-ctx.Done():
			return nil
		}
	}
}

// keepSecretsOnce reports whether all is on the disk that is to be there, and nothing else.
func (a *Agent) keepSecretsOnce() bool {
	refused := a.Refused()
	statuses := a.tasks.Statuses()
	wanted := map[string][]string{}
	for id, t := range a.tasks.Tasks() {
		ids := secretsIn(t)
		if !refused && offline(t) && len(ids) > 0 && statuses[id].GetState() <= api.TaskState_TASK_STATE_RUNNING {
			wanted[id] = ids
		}
	}
	err := a.vault.Sweep(func(task string) bool { return wanted[task] != nil })
	if err != nil {
		a.log.Error("secrets of tasks that are gone are still on the disk, sealed", "error", err)
	}
	done := err == nil
	for task, ids := range wanted {
		if err := a.vault.Keep(task, ids, a.secrets); err != nil {
			a.log.Error("secrets of a task are not kept for a restart of the machine", "task", task, "error", err)
			done = false
		}
	}
	return done
}

// unseal takes the secrets of all tasks from the vault, unless a manager told them.
func (a *Agent) unseal() {
	a.assigning.Lock()
	defer a.assigning.Unlock()
	select {
	case <-a.assigned:
		return
	default:
	}
	absent := map[string]string{}
	for id, t := range a.tasks.Tasks() {
		why := inMemory
		if offline(t) {
			if err := a.vault.Load(id, a.secrets); err != nil {
				a.log.Error("secrets of a task can't be had from the disk", "task", id, "error", err)
				why = err.Error()
			}
		}
		for _, id := range secretsIn(t) {
			absent[id] = why
		}
	}
	a.setAbsent(absent)
}

func (a *Agent) setAbsent(absent map[string]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.absent = absent
}

// OfflineTasks returns the number of tasks whose secrets are on the disk, sealed.
func (a *Agent) OfflineTasks() int { return a.vault.Len() }
