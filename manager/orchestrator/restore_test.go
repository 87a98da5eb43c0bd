package orchestrator_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/store/storetest"
)

// goingBack is a service whose update is to be undone, and the effect that does it.
func goingBack(change func(previous *api.ContainerSpec)) (*api.Service, orchestrator.Effect) {
	s := simService("s", 1, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1)
	change(s.GetSpec().GetTask().GetContainer())
	changeSpec(s, api.FailureAction_FAILURE_ACTION_ROLLBACK)
	return s, orchestrator.Effect{Restore: true, Status: &api.UpdateStatus{
		State: api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED, Message: "update rolled back due to failure of task x",
	}}
}

func TestApply_RestoresThePreviousSpec(t *testing.T) {
	s := storetest.New(t)
	before, effect := goingBack(func(c *api.ContainerSpec) {
		c.Secrets = []*api.SecretReference{{SecretId: "db", SecretName: "db"}}
		c.CapabilityAdd = []string{"CAP_NET_ADMIN"}
		c.Grants = []*api.GrantReference{{GrantId: "vpn", GrantName: "vpn"}}
	})
	storetest.Create(t, s, before, &api.Secret{Id: "db"}, &api.Grant{Id: "vpn", Spec: &api.GrantSpec{Capabilities: []string{"CAP_NET_ADMIN"}}},
		&api.Task{Id: "t", ServiceId: "s", Slot: 1, SpecVersion: 1})
	apply(t, s, effect)
	got := storetest.Get[*api.Service](t, s, "s")
	if !proto.Equal(got.GetSpec(), before.GetPreviousSpec()) || got.GetPreviousSpec() != nil || got.GetSpecVersion() != 3 || got.GetRestoredVersion() != 1 ||
		got.GetUpdateStatus().GetState() != api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED {
		t.Errorf("got %v", got)
	}
	apply(t, s, orchestrator.Effect{Adopt: "t"})
	if task := storetest.Get[*api.Task](t, s, "t"); task.GetSpecVersion() != 3 {
		t.Errorf("the task that stays is %v", task)
	}
}

// What was admitted once need not be possible any more, nor allowed.
func TestApply_PausesWhereThePreviousSpecIsImpossible(t *testing.T) {
	for want, change := range map[string]func(*api.ContainerSpec){
		"secret db is gone":   func(c *api.ContainerSpec) { c.Secrets = []*api.SecretReference{{SecretId: "db", SecretName: "db"}} },
		"config site is gone": func(c *api.ContainerSpec) { c.Configs = []*api.SecretReference{{SecretId: "site", SecretName: "site"}} },
		"version 1 of secret key is gone": func(c *api.ContainerSpec) {
			c.Secrets = []*api.SecretReference{{SecretId: "key", SecretName: "key", Version: 2}, {SecretId: "key", SecretName: "key", Version: 3}, {SecretId: "key", SecretName: "key", Version: 1}}
		},
		"grant vpn is gone": func(c *api.ContainerSpec) { c.Grants = []*api.GrantReference{{GrantId: "gone", GrantName: "vpn"}} },
		"capability CAP_NET_ADMIN, which no grant of it gives any more": func(c *api.ContainerSpec) {
			c.CapabilityAdd = []string{"CAP_NET_ADMIN"}
			c.Grants = []*api.GrantReference{{GrantId: "less", GrantName: "less"}}
		},
	} {
		s := storetest.New(t)
		before, effect := goingBack(change)
		storetest.Create(t, s, before, &api.Grant{Id: "less", Spec: &api.GrantSpec{}}, &api.Secret{Id: "key", Version: 3},
			&api.OldValue{Id: "old", OwnerId: "key", Number: 2})
		apply(t, s, effect)
		got := storetest.Get[*api.Service](t, s, "s")
		status := got.GetUpdateStatus()
		if !proto.Equal(got.GetSpec(), before.GetSpec()) || got.GetSpecVersion() != 2 || status.GetState() != api.UpdateState_UPDATE_STATE_PAUSED ||
			!strings.Contains(status.GetMessage(), want) || !strings.Contains(status.GetMessage(), "due to failure of task x") {
			t.Errorf("%s: got %v", want, got)
		}
	}
}
