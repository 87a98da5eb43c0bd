package control_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

func (s *swarm) createGrant(t *testing.T, name string, changes ...func(*api.GrantSpec)) *api.Grant {
	t.Helper()
	spec := &api.GrantSpec{Annotations: &api.Annotations{Name: name}, Capabilities: []string{"net_admin"}}
	for _, change := range changes {
		change(spec)
	}
	response, err := s.CreateGrant(t.Context(), &api.CreateGrantRequest{Spec: spec})
	if err != nil {
		t.Fatalf("create grant: %v", err)
	}
	return response.GetGrant()
}

func withGrant(names ...string) func(*api.ServiceSpec) {
	return func(spec *api.ServiceSpec) {
		for _, name := range names {
			spec.Task.Container.Grants = append(spec.Task.Container.Grants, &api.GrantReference{GrantName: name})
		}
	}
}

func withCapability(name string) func(*api.ServiceSpec) {
	return func(spec *api.ServiceSpec) { spec.Task.Container.CapabilityAdd = []string{name} }
}

func TestCreateGrant_RefusesWhatIsNone(t *testing.T) {
	s := newSwarm(t)
	for want, change := range map[string]func(*api.GrantSpec){
		"annotations.name: invalid name":                    func(g *api.GrantSpec) { g.Annotations.Name = "-" },
		"devices[0].path: invalid device":                   func(g *api.GrantSpec) { g.Devices = []*api.GrantDevice{{Path: "/dev/../etc/shadow"}} },
		"devices[0].path: every container":                  func(g *api.GrantSpec) { g.Devices = []*api.GrantDevice{{Path: "/dev/pts/0"}} },
		"devices[0].permissions: invalid":                   func(g *api.GrantSpec) { g.Devices = []*api.GrantDevice{{Path: "/dev/kvm", Permissions: "rwm"}} },
		"devices[1].path: /dev/kvm is there":                func(g *api.GrantSpec) { g.Devices = []*api.GrantDevice{{Path: "/dev/kvm"}, {Path: "/dev/kvm"}} },
		"mounts[0].source: invalid path":                    func(g *api.GrantSpec) { g.Mounts = []*api.GrantMount{{Source: "/a/../b"}} },
		"mounts[0].source: /var/run/skep is of Skep itself": func(g *api.GrantSpec) { g.Mounts = []*api.GrantMount{{Source: "/var/run/skep"}} },
		"mounts[0].source: /var/lib/skep/a is of Skep":      func(g *api.GrantSpec) { g.Mounts = []*api.GrantMount{{Source: "/var/lib/skep/a"}} },
		`cdi_devices[0]: invalid CDI device "gpu"`:          func(g *api.GrantSpec) { g.CdiDevices = []string{"gpu"} },
		"cdi_devices[1]: v.com/c=d is there twice":          func(g *api.GrantSpec) { g.CdiDevices = []string{"v.com/c=d", "v.com/c=d"} },
		"ignore_cdi_hooks: is for CDI devices only":         func(g *api.GrantSpec) { g.IgnoreCdiHooks = true },
		"mounts[0].target: invalid mount":                   func(g *api.GrantSpec) { g.Mounts = []*api.GrantMount{{Source: "/"}} },
		"mounts[0].target: /dev/x would":                    func(g *api.GrantSpec) { g.Mounts = []*api.GrantMount{{Source: "/a", Target: "/dev/x"}} },
		"mounts[1].target: duplicate":                       func(g *api.GrantSpec) { g.Mounts = []*api.GrantMount{{Source: "/a"}, {Source: "/b", Target: "/a"}} },
		"description: 2000 bytes":                           func(g *api.GrantSpec) { g.Description = strings.Repeat("a", 2000) },
		"spec: grants nothing":                              func(g *api.GrantSpec) { g.Capabilities = nil },
		`unknown capability: "CAP_FLY"`:                     func(g *api.GrantSpec) { g.Capabilities = []string{"fly"} },
		"node_labels: invalid constraint":                   func(g *api.GrantSpec) { g.NodeLabels = map[string]string{"a b": "c"} },
		"has fields that this version does ":                func(g *api.GrantSpec) { g.ProtoReflect().SetUnknown([]byte("\xa2\x06\x01x")) },
	} {
		spec := &api.GrantSpec{Annotations: &api.Annotations{Name: "tun"}, Capabilities: []string{"NET_ADMIN"}}
		change(spec)
		_, err := s.CreateGrant(t.Context(), &api.CreateGrantRequest{Spec: spec})
		wantFault(t, err, fault.Invalid, want)
	}
	s.createGrant(t, "tun")
	_, err := s.CreateGrant(t.Context(), &api.CreateGrantRequest{Spec: &api.GrantSpec{
		Annotations: &api.Annotations{Name: "tun"}, Capabilities: []string{"bpf"},
	}})
	wantFault(t, err, fault.AlreadyExists, "grant tun already exists")
}

// What is beyond the default is refused by its name, with the way to get it; with a grant it is not.
func TestCreateService_TakesAGrantForMoreThanTheDefault(t *testing.T) {
	s := newSwarm(t)
	_, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(withCapability("net_admin"))})
	wantFault(t, err, fault.Precondition, "capability CAP_NET_ADMIN is beyond what containers have by default")
	wantFault(t, err, fault.Precondition, "`skep grant create NAME --cap-add NET_ADMIN`")
	_, err = s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(withGrant("tun"))})
	wantFault(t, err, fault.Invalid, "grant not found: tun")
	grant := s.createGrant(t, "tun")
	service := s.createService(t, web(withCapability("net_admin"), withGrant("tun")))
	if got := service.GetSpec().GetTask().GetContainer().GetGrants()[0]; got.GetGrantId() != grant.GetId() || got.GetGrantName() != "tun" {
		t.Errorf("got reference %v", got)
	}
	_, err = s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(withGrant("tun", grant.GetId()))})
	wantFault(t, err, fault.Invalid, "tun is there twice")
}

// A namespace of the node takes a grant that allows it and a service that asks for it; the error says how to get it.
func TestCreateService_SharesNamespacesByGrant(t *testing.T) {
	s := newSwarm(t)
	for flag, privileges := range map[string]*api.Privileges{
		"pid":     {Pid: api.NamespaceMode_NAMESPACE_MODE_HOST},
		"ipc":     {Ipc: api.NamespaceMode_NAMESPACE_MODE_HOST},
		"userns":  {Userns: api.UsernsMode_USERNS_MODE_HOST},
		"network": {Network: api.NamespaceMode_NAMESPACE_MODE_HOST},
	} {
		asks := func(spec *api.ServiceSpec) { spec.Annotations.Name, spec.Task.Container.Privileges = flag, privileges }
		_, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(asks)})
		wantFault(t, err, fault.Precondition, "no grant of the service gives it: an administrator makes one with `skep grant create NAME --"+flag+" host`")
		s.createGrant(t, "other-"+flag)
		_, err = s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(asks, withGrant("other-"+flag))})
		wantFault(t, err, fault.Precondition, flag+"=host (")
		s.createGrant(t, flag, func(g *api.GrantSpec) { g.SecurityOptions = []string{flag + "=host"} })
		s.createService(t, web(asks, withGrant(flag)))
	}
}

// Where a task's lines go beyond its files takes a grant that names the place.
func TestCreateService_SendsLogsWhereAGrantSays(t *testing.T) {
	s := newSwarm(t)
	to := func(name, address string) func(*api.ServiceSpec) {
		return func(spec *api.ServiceSpec) {
			spec.Task.LogDriver = &api.LogDriver{Name: name}
			if address != "" {
				spec.Task.LogDriver.Options = map[string]string{"syslog-address": address}
			}
		}
	}
	_, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(to("syslog", "tcp://10.0.0.1"))})
	wantFault(t, err, fault.Precondition, "log=tcp://10.0.0.1:514 (each node's root sends what it writes to tcp://10.0.0.1:514) is beyond")
	wantFault(t, err, fault.Precondition, "`skep grant create NAME --security-opt log=tcp://10.0.0.1:514`")
	_, err = s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(to("journald", ""))})
	wantFault(t, err, fault.Precondition, "`skep grant create NAME --security-opt log=journald`")
	_, err = s.CreateGrant(t.Context(), &api.CreateGrantRequest{Spec: &api.GrantSpec{
		Annotations: &api.Annotations{Name: "logs"}, SecurityOptions: []string{"log=udp://10.0.0.1"},
	}})
	wantFault(t, err, fault.Invalid, "log=udp://10.0.0.1: write udp://10.0.0.1:514")
	s.createGrant(t, "logs", func(g *api.GrantSpec) { g.SecurityOptions = []string{"log=tcp://10.0.0.1:514"} })
	_, err = s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(to("syslog", "tcp://10.0.0.2"), withGrant("logs"))})
	wantFault(t, err, fault.Precondition, "log=tcp://10.0.0.2:514")
	service := s.createService(t, web(to("syslog", "tcp://10.0.0.1"), withGrant("logs")))
	// A change of the driver alone is held against the grants, too, and against who may use them.
	change := func(ctx context.Context) error {
		spec := proto.CloneOf(service.GetSpec())
		to("journald", "")(spec)
		_, err := s.UpdateService(ctx, &api.UpdateServiceRequest{ServiceId: service.GetId(), Version: service.GetMeta().GetVersion(), Spec: spec})
		return err
	}
	wantFault(t, change(t.Context()), fault.Precondition, "log=journald")
	wantFault(t, change(as(t, api.Caller_CALLER_OPERATOR)), fault.PermissionDenied, "grant logs is for administrators")
}

// Operators hand out what is meant for them; else they scale and move what an administrator made, and change no container of it.
func TestUpdateService_OperatorsKeepGrantedContainersAsTheyAre(t *testing.T) {
	s := newSwarm(t)
	s.createGrant(t, "tun")
	s.createGrant(t, "shared", func(g *api.GrantSpec) { g.Operators = true })
	operator := as(t, api.Caller_CALLER_OPERATOR)
	_, err := s.CreateService(operator, &api.CreateServiceRequest{Spec: web(withGrant("tun"))})
	wantFault(t, err, fault.PermissionDenied, "grant tun is for administrators")
	if _, err := s.CreateService(operator, &api.CreateServiceRequest{Spec: web(withGrant("shared"), func(spec *api.ServiceSpec) {
		spec.Annotations.Name = "theirs"
	})}); err != nil {
		t.Errorf("a grant for operators: %v", err)
	}
	service := s.createService(t, web(withGrant("tun")))
	change := func(change func(*api.ServiceSpec)) error {
		spec := proto.CloneOf(service.GetSpec())
		change(spec)
		answer, err := s.UpdateService(operator, &api.UpdateServiceRequest{ServiceId: service.GetId(), Version: service.GetMeta().GetVersion(), Spec: spec})
		if err == nil {
			service = answer.GetService()
		}
		return err
	}
	if err := change(func(spec *api.ServiceSpec) { spec.Replicated.Replicas = 5; spec.Task.ForceUpdate++ }); err != nil {
		t.Errorf("scale: %v", err)
	}
	err = change(func(spec *api.ServiceSpec) { spec.Task.Container.Args = []string{"sh"} })
	wantFault(t, err, fault.PermissionDenied, "grant tun is for administrators")
	if err := change(func(spec *api.ServiceSpec) { spec.Task.Container.Grants = nil }); err != nil {
		t.Errorf("give it back: %v", err)
	}
}

func TestRemoveGrant_KeepsWhatServicesAndTasksHave(t *testing.T) {
	s := newSwarm(t)
	grant := s.createGrant(t, "tun")
	service := s.createService(t, web(withGrant("tun")))
	remove := func() error {
		_, err := s.RemoveGrant(t.Context(), &api.RemoveGrantRequest{Grant: "tun"})
		return err
	}
	wantFault(t, remove(), fault.Precondition, "grant 'tun' is in use by the following service: web")
	if _, err := s.RemoveService(t.Context(), &api.RemoveServiceRequest{Service: "web"}); err != nil {
		t.Fatal(err)
	}
	task := &api.Task{
		Id: "t", ServiceId: service.GetId(), ServiceName: "web", Slot: 1, Spec: service.GetSpec().GetTask(),
		Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING},
	}
	storetest.Create(t, s.store, task)
	wantFault(t, remove(), fault.Precondition, "task web.1 has it")
	ended := proto.CloneOf(storetest.Get[*api.Task](t, s.store, "t"))
	ended.Status.State = api.TaskState_TASK_STATE_SHUTDOWN
	if err := s.store.Update(t.Context(), "", func(tx store.Tx) error { return tx.Update(ended) }); err != nil {
		t.Fatal(err)
	}
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	_, err := s.GetGrant(t.Context(), &api.GetGrantRequest{Grant: grant.GetId()})
	wantFault(t, err, fault.NotFound, "not found")
}

// A service whose grants ask for labels that no node has is told so at once.
func TestCreateService_WarnsOfLabelsThatGrantsAskFor(t *testing.T) {
	s := newSwarm(t)
	s.createGrant(t, "kvm", func(g *api.GrantSpec) { g.NodeLabels = map[string]string{"vmx": "yes"} })
	response, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(withGrant("kvm"))})
	if err != nil || len(response.GetWarnings()) != 1 || !strings.Contains(response.GetWarnings()[0], "node.labels.vmx==yes") {
		t.Errorf("got warnings %q, %v", response.GetWarnings(), err)
	}
}

// An update of a grant replaces the tasks of who has it, if they are given something else by it, and takes from nobody what is asked for.
func TestUpdateGrant_ReplacesTheTasksOfWhoHasIt(t *testing.T) {
	s := newSwarm(t)
	grant := s.createGrant(t, "tun", func(g *api.GrantSpec) { g.SecurityOptions = []string{"pid=host", "ipc=host"} })
	s.createGrant(t, "other")
	service := s.createService(t, web(withGrant("tun"), withCapability("net_admin"), func(spec *api.ServiceSpec) {
		spec.Task.Container.Privileges = &api.Privileges{Pid: api.NamespaceMode_NAMESPACE_MODE_HOST}
	}))
	bystander := s.createService(t, web(withGrant("other"), func(spec *api.ServiceSpec) { spec.Annotations.Name = "bystander" }))
	update := func(change func(*api.GrantSpec)) ([]string, error) {
		spec := proto.CloneOf(grant.GetSpec())
		change(spec)
		answer, err := s.UpdateGrant(t.Context(), &api.UpdateGrantRequest{GrantId: grant.GetId(), Version: grant.GetMeta().GetVersion(), Spec: spec})
		if err == nil {
			grant = answer.GetGrant()
		}
		return answer.GetServices(), err
	}
	version := func(of *api.Service) uint64 {
		return storetest.Get[*api.Service](t, s.store, of.GetId()).GetSpecVersion()
	}
	for what, tt := range map[string]struct {
		change func(*api.GrantSpec)
		renews bool
	}{
		"for people":     {func(g *api.GrantSpec) { g.Description, g.Operators = "vpn", true }, false},
		"not asked for":  {func(g *api.GrantSpec) { g.SecurityOptions = []string{"pid=host"} }, false},
		"a device":       {func(g *api.GrantSpec) { g.Devices = []*api.GrantDevice{{Path: "/dev/kvm"}} }, true},
		"where it holds": {func(g *api.GrantSpec) { g.NodeLabels = map[string]string{"vpn": "yes"} }, true},
	} {
		before := version(service)
		services, err := update(tt.change)
		if err != nil || (len(services) == 1 && services[0] == "web") != tt.renews || (version(service) > before) != tt.renews {
			t.Errorf("%s: services %v, %v, spec version %d after %d", what, services, err, version(service), before)
		}
	}
	if got := version(bystander); got != 1 {
		t.Errorf("a service without the grant is at spec version %d", got)
	}
	before := version(service)
	_, err := update(func(g *api.GrantSpec) { g.Capabilities = []string{"bpf"} })
	wantFault(t, err, fault.Precondition, "service web asks for what its grants would not give it any more: capability CAP_NET_ADMIN; update the service first")
	_, err = update(func(g *api.GrantSpec) { g.SecurityOptions = nil })
	wantFault(t, err, fault.Precondition, "pid=host")
	_, err = update(func(g *api.GrantSpec) { g.Annotations.Name = "else" })
	wantFault(t, err, fault.Invalid, "renaming grants is not supported")
	_, err = update(func(g *api.GrantSpec) { g.Devices = []*api.GrantDevice{{Path: "/etc/passwd"}} })
	wantFault(t, err, fault.Invalid, "devices[0].path: invalid device")
	_, err = s.UpdateGrant(t.Context(), &api.UpdateGrantRequest{GrantId: grant.GetId(), Version: 1, Spec: grant.GetSpec()})
	wantFault(t, err, fault.Conflict, "update out of sequence")
	if got := version(service); got != before {
		t.Errorf("a refused change replaces tasks: spec version %d after %d", got, before)
	}
}

// Where a grant holds is an administrator's word, too: operators change all labels of nodes but those that grants name.
func TestUpdateNode_OperatorsDoNotSayWhereGrantsHold(t *testing.T) {
	s := newSwarm(t)
	s.createGrant(t, "kvm", func(g *api.GrantSpec) { g.NodeLabels, g.Operators = map[string]string{"vmx": "yes"}, true })
	storetest.Create(t, s.store, &api.Node{Id: "n", Spec: &api.NodeSpec{
		Annotations: &api.Annotations{Labels: map[string]string{"a": "b"}}, DesiredRole: api.Role_ROLE_WORKER,
		Availability: api.Availability_AVAILABILITY_ACTIVE,
	}})
	set := func(ctx context.Context, labels map[string]string) error {
		node := storetest.Get[*api.Node](t, s.store, "n")
		spec := proto.CloneOf(node.GetSpec())
		spec.Annotations.Labels = labels
		_, err := s.UpdateNode(ctx, &api.UpdateNodeRequest{NodeId: "n", Version: node.GetMeta().GetVersion(), Spec: spec})
		return err
	}
	operator := as(t, api.Caller_CALLER_OPERATOR)
	wantFault(t, set(operator, map[string]string{"vmx": "yes"}), fault.PermissionDenied, "label vmx of a node says where grant kvm holds")
	if err := set(operator, map[string]string{"zone": "x"}); err != nil {
		t.Errorf("another label: %v", err)
	}
	if err := set(t.Context(), map[string]string{"vmx": "yes", "zone": "x"}); err != nil {
		t.Errorf("by an administrator: %v", err)
	}
	if err := set(operator, map[string]string{"vmx": "yes"}); err != nil {
		t.Errorf("what stays as it is: %v", err)
	}
	wantFault(t, set(operator, nil), fault.PermissionDenied, "label vmx")
	wantFault(t, set(operator, map[string]string{"vmx": "no"}), fault.PermissionDenied, "label vmx")
}
