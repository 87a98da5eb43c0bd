package servicespec_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/servicespec"
	"github.com/skep-io/skep/internal/fault"
)

// resolve knows every secret and config but nothere.
func resolve(_ context.Context, kind, name string) (string, string, error) {
	if name == "nothere" {
		return "", "", fault.New(fault.NotFound, "%s not found: nothere", kind)
	}
	return "id-" + name, name, nil
}

func noEnv(string) (string, bool) { return "", false }

func create(t *testing.T, image string, args []string, flags ...string) (*api.ServiceSpec, error) {
	t.Helper()
	var c servicespec.Create
	set := pflag.NewFlagSet("create", pflag.ContinueOnError)
	c.Register(set)
	if err := set.Parse(flags); err != nil {
		return nil, err
	}
	return c.Spec(t.Context(), image, args, noEnv, resolve)
}

func update(t *testing.T, present *api.ServiceSpec, flags ...string) (*api.ServiceSpec, error) {
	t.Helper()
	var u servicespec.Update
	set := pflag.NewFlagSet("update", pflag.ContinueOnError)
	u.Register(set)
	if err := set.Parse(flags); err != nil {
		return nil, err
	}
	before := proto.Clone(present)
	got, err := u.Apply(t.Context(), present, noEnv, resolve)
	if diff := cmp.Diff(before, present, protocmp.Transform()); diff != "" {
		t.Errorf("the present spec was changed: %s", diff)
	}
	return got, err
}

// spec reads a spec written as prototext.
func spec(t *testing.T, text string) *api.ServiceSpec {
	t.Helper()
	out := &api.ServiceSpec{}
	if err := prototext.Unmarshal([]byte(text), out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestCreate_LeavesUnsetWhatWasNotTyped(t *testing.T) {
	got, err := create(t, "app", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := spec(t, `annotations {} replicated { replicas: 1 } task { container { image: "docker.io/library/app:latest" } }`)
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestCreate_ReadsEveryFlag(t *testing.T) {
	got, err := create(t, "skep.local/hello:1", []string{"-x", "y"},
		"--name=web", "--replicas=3", "-l", "a=1", "--container-label", "b=2", "-e", "K=V", "-e", "UNSET", "--constraint", "node.role == worker",
		"--constraint", "node.labels.zone!=a", "--replicas-max-per-node=2", "--limit-cpu=0.5", "--limit-memory=64M", "--limit-pids=100",
		"--reserve-cpu=0.25", "--reserve-memory=32M", "--read-only", "--user=1000:1000", "-w", "/srv", "--hostname=h", "--entrypoint=/bin/sh -c",
		"--restart-condition=on-failure", "--restart-delay=1s", "--restart-max-attempts=3", "--restart-window=1m",
		"--update-parallelism=0", "--update-delay=2s", "--update-order=start-first", "--update-monitor=7s", "--update-deadline=1m",
		"--update-max-failure-ratio=0.25", "--update-failure-action=rollback", "--rollback-parallelism=2", "--rollback-delay=3s",
		"--rollback-order=stop-first", "--rollback-monitor=0s", "--rollback-max-failure-ratio=1", "--rollback-failure-action=continue", "-p", "published=80,target=8080,mode=host",
		"--mount", "type=tmpfs,target=/t", "--cap-add=net_admin", "--cap-drop=ALL", "--stop-signal=SIGINT", "--stop-grace-period=3s",
		"--secret", "db", "--secret", "source=key,target=/k,uid=7,mode=0400", "--group=staff", "--group-add=7", "-t", "--init",
		"--sysctl=net.ipv4.ip_forward=1", "--ulimit=nofile=10:20", "--oom-score-adj=5", "--shm-size=1M", "--pid=private",
		"--tmpfs=/s:size=1m,mode=700,uid=3,exec", "--host=db:192.0.2.9", "--host=six=[2001:db8::1]", "--host=db:192.0.2.9", "--dns=192.0.2.53",
		"--dns=192.0.2.1", "--dns-option=ndots:2", "--dns-search=example.org")
	if err != nil {
		t.Fatal(err)
	}
	want := spec(t, `
annotations { name: "web" labels { key: "a" value: "1" } }
replicated { replicas: 3 }
update {
  delay { seconds: 2 } order: UPDATE_ORDER_START_FIRST monitor { seconds: 7 } deadline { seconds: 60 } max_failure_ratio: 0.25
  failure_action: FAILURE_ACTION_ROLLBACK
}
rollback {
  parallelism: 2 delay { seconds: 3 } order: UPDATE_ORDER_STOP_FIRST monitor {} max_failure_ratio: 1 failure_action: FAILURE_ACTION_CONTINUE
}
endpoint { ports { protocol: PROTOCOL_TCP target_port: 8080 published_port: 80 publish_mode: PUBLISH_MODE_HOST } }
task {
  container {
    image: "skep.local/hello:1" labels { key: "b" value: "2" } command: "/bin/sh" command: "-c" args: "-x" args: "y"
    hostname: "h" env: "K=V" dir: "/srv" user: "1000:1000" read_only: true stop_signal: "SIGINT" stop_grace_period { seconds: 3 }
    secrets { secret_id: "id-db" secret_name: "db" target { name: "db" mode: 0444 } }
    secrets { secret_id: "id-key" secret_name: "key" target { name: "/k" uid: 7 mode: 0400 } }
    mounts { type: MOUNT_TYPE_TMPFS target: "/t" }
    mounts { type: MOUNT_TYPE_TMPFS target: "/s" tmpfs_size_bytes: 1048576 tmpfs_mode: 0700 tmpfs_uid: 3 tmpfs_exec: true }
    capability_add: "CAP_NET_ADMIN" capability_drop: "ALL"
    groups: "staff" groups: "7" tty: true init: true sysctls { key: "net.ipv4.ip_forward" value: "1" }
    ulimits { name: "nofile" soft: 10 hard: 20 } oom_score_adj: 5 shm_size_bytes: 1048576
    hosts: "192.0.2.9 db" hosts: "2001:db8::1 six"
    dns { nameservers: "192.0.2.53" nameservers: "192.0.2.1" options: "ndots:2" search: "example.org" }
  }
  resources {
    limits { nano_cpus: 500000000 memory_bytes: 67108864 pids: 100 }
    reservations { nano_cpus: 250000000 memory_bytes: 33554432 }
  }
  restart { condition: RESTART_CONDITION_ON_FAILURE delay { seconds: 1 } max_attempts: 3 window { seconds: 60 } }
  placement { constraints: "node.role == worker" constraints: "node.labels.zone!=a" max_replicas: 2 }
}`)
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestCreate_RefusesBadInput(t *testing.T) {
	for flags, want := range map[string]string{
		"--mode=everywhere":                   "unknown mode: everywhere",
		"--log-opt=max-size":                  "write KEY=VALUE, such as max-size=10m",
		"--restart-backoff=linear":            "write fixed or exponential",
		"--restart-condition=always":          "write none, on-failure or any",
		"--strategy=random":                   "write spread or binpack",
		"--update-order=random":               "write start-first or stop-first",
		"--update-failure-action=stop":        "write pause, continue or rollback",
		"--rollback-failure-action=rollback":  "write pause or continue",
		"--rollback-order=random":             "write start-first or stop-first",
		"--update-max-failure-ratio=half":     "invalid syntax",
		"--limit-pids=-1":                     "invalid --limit-pids -1",
		"--secret=nothere":                    "secret not found",
		"--secret=a --secret=a":               "duplicate secret target for a not allowed",
		"--env-file=/nonexistent":             "no such file or directory",
		"-e =x":                               "invalid environment variable",
		"--replicas=-1":                       "invalid syntax",
		"--limit-memory=much":                 "invalid size: 'much'",
		"--publish=8080:80":                   "mode=host",
		"--mount=type=npipe,target=/x":        `a mount of the type "npipe" can't be had`,
		"--entrypoint='":                      "ends inside a quote",
		"--label==x":                          "invalid label format",
		"--stop-grace-period=soon":            "invalid duration",
		"--limit-cpu=0.0000000001":            "value is too precise",
		"--secret=source=x,uid=root":          "invalid uid",
		"--update-parallelism=many":           "invalid syntax",
		"--replicas-max-per-node=-3":          "invalid syntax",
		"--secret=source=a,nope=1":            "invalid field in secret request: nope",
		"--publish=target=80,mode=there":      "must be either 'ingress' or 'host'",
		"--pid=container:x":                   `invalid argument "container:x" for "--pid" flag: write private or host`,
		"--ipc=":                              "write private or host",
		"--no-healthcheck --health-retries=1": "--no-healthcheck conflicts with --health-* options",
		"--health-retries=-1":                 "invalid --health-retries -1",
		"--no-ready --ready-cmd=x":            "--no-ready conflicts with --ready-* options",
		"--ready-retries=-1":                  "invalid --ready-retries -1",
		"--ulimit=memory=3":                   "invalid ulimit type: memory",
		"--host=db":                           `bad format for add-host: "db": write NAME:IP`,
		"--host=:192.0.2.1":                   `bad format for add-host: ":192.0.2.1"`,
		"--host=a:b=::1":                      `bad format for add-host: "a:b=::1"`,
		"--host=db:example.org":               `invalid IP address in add-host: "example.org"`,
		"--host=db:fe80::1%eth0":              `invalid IP address in add-host: "fe80::1%eth0"`,
		"--host=db:host-gateway":              "containers don't reach their node: write the address of the machine",
		"--tmpfs=x":                           "write an absolute path",
		"--tmpfs=/x:suid":                     `invalid tmpfs option "suid"`,
		"--tmpfs=/x:size=much":                "invalid value for tmpfs option size: much",

		"--mode=global-job --replicas=2":          "replicas can only be used with replicated or replicated-job mode",
		"--max-concurrent=2":                      "max-concurrent can only be used with replicated-job mode",
		"--mode=global --replicas=2":              "replicas can only be used with replicated or replicated-job mode",
		"--mode=global --replicas-max-per-node=2": "replicas-max-per-node can only be used with",

		"--userns=shared":                            `invalid argument "shared" for "--userns" flag: write private or host`,
		"--security-opt=fast":                        `invalid --security-opt "fast"`,
		"--security-opt=seccomp=":                    `invalid --security-opt "seccomp="`,
		"--security-opt=seccomp=/nonexistent":        "opening seccomp profile (/nonexistent) failed: open /nonexistent: no such file",
		"--security-opt=seccomp=/dev/zero":           "seccomp profile /dev/zero is too long",
		"--security-opt=label=kind:x":                "invalid --security-opt label=kind:x",
		"--security-opt=label=user":                  "invalid --security-opt label=user",
		"--security-opt=no-new-privileges=sometimes": "write true or false",
	} {
		_, err := create(t, "app", nil, strings.Fields(flags)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", flags, err, want)
		}
	}
	if _, err := create(t, "Not An Image", nil); fault.KindOf(err) != fault.Invalid {
		t.Errorf("bad image: got %v", err)
	}
}

func TestSecurityOptions(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "p.json")
	if err := os.WriteFile(profile, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for flags, want := range map[string]string{
		"--security-opt=seccomp=unconfined":                                "seccomp { mode: SECCOMP_MODE_UNCONFINED }",
		"--security-opt=seccomp:unconfined":                                "seccomp { mode: SECCOMP_MODE_UNCONFINED }",
		"--security-opt=seccomp=" + profile:                                `seccomp { mode: SECCOMP_MODE_CUSTOM profile: "{}" }`,
		"--security-opt=seccomp=unconfined --security-opt=seccomp=default": "",
		"--security-opt=seccomp=builtin":                                   "",
		"--security-opt=no-new-privileges":                                 "",
		"--security-opt=no-new-privileges=false":                           "new_privileges: true",
		"--security-opt=no-new-privileges:false":                           "new_privileges: true",
		"--security-opt=apparmor=unconfined":                               "apparmor { mode: APP_ARMOR_MODE_UNCONFINED }",
		"--security-opt=apparmor=web":                                      `apparmor { mode: APP_ARMOR_MODE_PROFILE profile: "web" }`,
		"--security-opt=label=disable":                                     "selinux_context { disable: true }",
		"--security-opt=label=type:web_t --security-opt=label=level:s0:c1,c2 --security-opt=label=user:u --security-opt=label=role:r": `selinux_context { user: "u" role: "r" type: "web_t" level: "s0:c1,c2" }`,
		"--userns=host":    "userns: USERNS_MODE_HOST",
		"--userns=private": "",
		"--pid=host":       "pid: NAMESPACE_MODE_HOST",
		"--ipc=host":       "ipc: NAMESPACE_MODE_HOST",
		"--network=host":   "network: NAMESPACE_MODE_HOST",
		"--pid=private":    "",
	} {
		got, err := create(t, "app", nil, strings.Fields(flags)...)
		if err != nil {
			t.Errorf("%s: %v", flags, err)
			continue
		}
		var parsed *api.Privileges
		if want != "" {
			parsed = spec(t, "task { container { privileges { "+want+" } } }").GetTask().GetContainer().GetPrivileges()
		}
		if diff := cmp.Diff(parsed, got.GetTask().GetContainer().GetPrivileges(), protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", flags, diff)
		}
	}
	weak := spec(t, `task { container { privileges { userns: USERNS_MODE_HOST pid: NAMESPACE_MODE_HOST new_privileges: true seccomp { mode: SECCOMP_MODE_UNCONFINED } } } }`)
	got, err := update(t, weak, "--security-opt=seccomp=default", "--userns=private", "--pid=private")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&api.Privileges{NewPrivileges: true}, got.GetTask().GetContainer().GetPrivileges(), protocmp.Transform()); diff != "" {
		t.Errorf("an update that takes part of it back: %s", diff)
	}
	onHost := spec(t, `task { container { privileges { network: NAMESPACE_MODE_HOST } } }`)
	if got, err := update(t, onHost, "--network-rm=host"); err != nil || got.GetTask().GetContainer().GetPrivileges() != nil {
		t.Errorf("a network that is taken back: %v, %v", got, err)
	}
	if got, err := update(t, spec(t, `task { container {} }`), "--network-add=host"); err != nil || got.GetTask().GetContainer().GetPrivileges().GetNetwork() != api.NamespaceMode_NAMESPACE_MODE_HOST {
		t.Errorf("a network that is added: %v, %v", got, err)
	}
	if got, err = update(t, got, "--security-opt=no-new-privileges"); err != nil || got.GetTask().GetContainer().GetPrivileges() != nil {
		t.Errorf("an update that takes the rest back: %v, %v", got.GetTask().GetContainer().GetPrivileges(), err)
	}
}

// present is a service with something of everything.
func present(t *testing.T) *api.ServiceSpec {
	t.Helper()
	return spec(t, `
annotations { name: "web" labels { key: "a" value: "1" } labels { key: "b" value: "2" } }
replicated { replicas: 3 }
update { parallelism: 2 delay { seconds: 2 } }
endpoint { ports { protocol: PROTOCOL_TCP target_port: 80 published_port: 8080 publish_mode: PUBLISH_MODE_HOST } }
task {
  container {
    image: "docker.io/library/app:1@sha256:4bcff63911fcb4448bd4fdacec207030997caf25e9bea4045fa6c8c44de311d1" args: "x" env: "A=1" env: "B=2"
    labels { key: "c" value: "3" }
    secrets { secret_id: "id-db" secret_name: "db" target { name: "db" mode: 0444 } }
    mounts { type: MOUNT_TYPE_TMPFS target: "/t" } read_only: true
    capability_add: "CAP_NET_ADMIN" capability_drop: "CAP_CHOWN"
    health { test: "CMD-SHELL" test: "true" }
    groups: "staff" sysctls { key: "net.ipv4.ip_forward" value: "1" } ulimits { name: "nofile" soft: 1 hard: 2 } init: true
    hosts: "192.0.2.9 db old" hosts: "192.0.2.8 db"
    dns { nameservers: "192.0.2.53" nameservers: "192.0.2.1" options: "edns0" search: "." }
  }
  resources { limits { nano_cpus: 500000000 memory_bytes: 67108864 } }
  restart { condition: RESTART_CONDITION_ANY delay { seconds: 5 } }
  placement { constraints: "node.role==worker" preferences { spread: "node.labels.zone" } preferences { spread: "node.labels.rack" } }
  log_driver { name: "file" options { key: "max-size" value: "5m" } }
}`)
}

// TestUpdate_ChangesOnlyWhatAFlagNames keeps I1: each case names the one field that differs.
func TestUpdate_ChangesOnlyWhatAFlagNames(t *testing.T) {
	for flags, change := range map[string]func(*api.ServiceSpec){
		"": func(*api.ServiceSpec) {},
		"--log-opt=max-file=2 --log-opt=max-size=1m": func(s *api.ServiceSpec) {
			s.Task.LogDriver.Options = map[string]string{"max-size": "1m", "max-file": "2"}
		},
		"--log-opt=max-size=":                    func(s *api.ServiceSpec) { s.Task.LogDriver.Options = nil },
		"--log-driver=none":                      func(s *api.ServiceSpec) { s.Task.LogDriver = &api.LogDriver{Name: "none"} },
		"--log-driver=":                          func(s *api.ServiceSpec) { s.Task.LogDriver = nil },
		"--replicas=5":                           func(s *api.ServiceSpec) { s.Replicated.Replicas = 5 },
		"--replicas=0":                           func(s *api.ServiceSpec) { s.Replicated.Replicas = 0 },
		"--image=app:2":                          func(s *api.ServiceSpec) { s.Task.Container.Image = "docker.io/library/app:2" },
		"--args=":                                func(s *api.ServiceSpec) { s.Task.Container.Args = nil },
		"--force":                                func(s *api.ServiceSpec) { s.Task.ForceUpdate = 1 },
		"--env-add=A=9 --env-add=C=3 --env-rm=B": func(s *api.ServiceSpec) { s.Task.Container.Env = []string{"A=9", "C=3"} },
		"--label-rm=a --label-add=z=":            func(s *api.ServiceSpec) { s.Annotations.Labels = map[string]string{"b": "2", "z": ""} },
		"--container-label-rm=c":                 func(s *api.ServiceSpec) { s.Task.Container.Labels = nil },
		"--constraint-rm=node.role==worker":      func(s *api.ServiceSpec) { s.Task.Placement.Constraints = nil },
		"--constraint-add=node.role==worker":     func(*api.ServiceSpec) {},
		"--placement-pref-rm=spread=node.labels.zone": func(s *api.ServiceSpec) {
			s.Task.Placement.Preferences = s.Task.Placement.Preferences[1:]
		},
		"--placement-pref-add=spread=node.labels.zone --placement-pref-add spread=engine.labels.x": func(s *api.ServiceSpec) {
			s.Task.Placement.Preferences = append(s.Task.Placement.Preferences, &api.PlacementPreference{Spread: "engine.labels.x"})
		},
		"--generic-resource-add=gpu=2": func(s *api.ServiceSpec) {
			s.Task.Resources.Reservations = &api.Resources{Generic: []*api.GenericResource{{Kind: "gpu", Count: 2}}}
		},
		"--strategy=binpack": func(s *api.ServiceSpec) {
			s.Task.Placement.Strategy = api.PlacementStrategy_PLACEMENT_STRATEGY_BINPACK
		},
		"--mount-rm=/t":                              func(s *api.ServiceSpec) { s.Task.Container.Mounts = nil },
		"--mount-add=type=tmpfs,target=/t,ro":        func(s *api.ServiceSpec) { s.Task.Container.Mounts[0].ReadOnly = true },
		"--group-add=staff --group-add=www":          func(s *api.ServiceSpec) { s.Task.Container.Groups = []string{"staff", "www"} },
		"--host-add=web:::1 --host-add=db=192.0.2.8": func(s *api.ServiceSpec) { s.Task.Container.Hosts = append(s.Task.Container.Hosts, "::1 web") },
		"--host-rm=db":                               func(s *api.ServiceSpec) { s.Task.Container.Hosts = []string{"192.0.2.9 old"} },
		"--host-rm=db:192.0.2.8":                     func(s *api.ServiceSpec) { s.Task.Container.Hosts = []string{"192.0.2.9 db old"} },
		"--host-rm=old --host-rm=none":               func(s *api.ServiceSpec) { s.Task.Container.Hosts[0] = "192.0.2.9 db" },
		"--host-rm=db --host-add=db:192.0.2.7":       func(s *api.ServiceSpec) { s.Task.Container.Hosts = []string{"192.0.2.9 old", "192.0.2.7 db"} },
		"--dns-add=192.0.2.2 --dns-add=192.0.2.1": func(s *api.ServiceSpec) {
			s.Task.Container.Dns.Nameservers = append(s.Task.Container.Dns.Nameservers, "192.0.2.2")
		},
		"--dns-rm=192.0.2.53":                                                            func(s *api.ServiceSpec) { s.Task.Container.Dns.Nameservers = []string{"192.0.2.1"} },
		"--dns-option-rm=edns0 --dns-option-add=ndots:1":                                 func(s *api.ServiceSpec) { s.Task.Container.Dns.Options = []string{"ndots:1"} },
		"--dns-search-rm=. --dns-search-add=a.test":                                      func(s *api.ServiceSpec) { s.Task.Container.Dns.Search = []string{"a.test"} },
		"--dns-rm=192.0.2.53 --dns-rm=192.0.2.1 --dns-option-rm=edns0 --dns-search-rm=.": func(s *api.ServiceSpec) { s.Task.Container.Dns = nil },
		"--group-rm=staff":                                                               func(s *api.ServiceSpec) { s.Task.Container.Groups = nil },
		"--sysctl-rm=net.ipv4.ip_forward":                                                func(s *api.ServiceSpec) { s.Task.Container.Sysctls = nil },
		"--sysctl-add=net.ipv4.ip_forward=0":                                             func(s *api.ServiceSpec) { s.Task.Container.Sysctls["net.ipv4.ip_forward"] = "0" },
		"--ulimit-rm=nofile --ulimit-add=core=0": func(s *api.ServiceSpec) {
			s.Task.Container.Ulimits = []*api.Ulimit{{Name: "core"}}
		},
		"--ulimit-add=nofile=7": func(s *api.ServiceSpec) { s.Task.Container.Ulimits[0] = &api.Ulimit{Name: "nofile", Soft: 7, Hard: 7} },
		"--health-retries=2 --health-timeout=1s": func(s *api.ServiceSpec) {
			s.Task.Container.Health.Retries, s.Task.Container.Health.Timeout = 2, durationpb.New(time.Second)
		},
		"--ready-cmd=up --ready-retries=2 --ready-start-period=9s": func(s *api.ServiceSpec) {
			s.Task.Container.Ready = &api.HealthConfig{Test: []string{"CMD-SHELL", "up"}, Retries: 2, StartPeriod: durationpb.New(9 * time.Second)}
		},
		"--no-ready":                              func(*api.ServiceSpec) {},
		"--no-healthcheck":                        func(s *api.ServiceSpec) { s.Task.Container.Health = &api.HealthConfig{Test: []string{"NONE"}} },
		"--init=false --tty":                      func(s *api.ServiceSpec) { s.Task.Container.Init, s.Task.Container.Tty = false, true },
		"--storage-size=2g":                       func(s *api.ServiceSpec) { s.Task.Container.StorageSizeBytes = 2 << 30 },
		"--oom-score-adj=9 --shm-size=1g":         func(s *api.ServiceSpec) { s.Task.Container.OomScoreAdj, s.Task.Container.ShmSizeBytes = 9, 1<<30 },
		"--publish-rm=80":                         func(s *api.ServiceSpec) { s.Endpoint.Ports = nil },
		"--publish-rm=80/udp":                     func(*api.ServiceSpec) {},
		"--secret-offline":                        func(s *api.ServiceSpec) { s.Task.Container.SecretOffline = true },
		"--secret-rm=db":                          func(s *api.ServiceSpec) { s.Task.Container.Secrets = nil },
		"--secret-add=source=db,target=db,mode=4": func(s *api.ServiceSpec) { s.Task.Container.Secrets[0].Target.Mode = 4 },
		"--limit-memory=0":                        func(s *api.ServiceSpec) { s.Task.Resources.Limits.MemoryBytes = 0 },
		"--reserve-memory=1M":                     func(s *api.ServiceSpec) { s.Task.Resources.Reservations = &api.Resources{MemoryBytes: 1 << 20} },
		"--restart-max-attempts=3":                func(s *api.ServiceSpec) { s.Task.Restart.MaxAttempts = 3 },
		"--update-parallelism=0":                  func(s *api.ServiceSpec) { s.Update.Parallelism = 0 },
		"--update-order=stop-first":               func(s *api.ServiceSpec) { s.Update.Order = api.UpdateOrder_UPDATE_ORDER_STOP_FIRST },
		"--replicas-max-per-node=1":               func(s *api.ServiceSpec) { s.Task.Placement.MaxReplicas = 1 },
		"--read-only=false":                       func(s *api.ServiceSpec) { s.Task.Container.ReadOnly = false },
		"--user=u --workdir=/w --hostname=h":      func(s *api.ServiceSpec) { c := s.Task.Container; c.User, c.Dir, c.Hostname = "u", "/w", "h" },
		"--cap-drop=net_admin": func(s *api.ServiceSpec) {
			c := s.Task.Container
			c.CapabilityAdd, c.CapabilityDrop = nil, []string{"CAP_CHOWN", "CAP_NET_ADMIN"}
		},
		"--cap-add=chown": func(s *api.ServiceSpec) {
			c := s.Task.Container
			c.CapabilityAdd, c.CapabilityDrop = []string{"CAP_CHOWN", "CAP_NET_ADMIN"}, nil
		},
		"--cap-add=ALL --cap-add=RESET": func(s *api.ServiceSpec) { s.Task.Container.CapabilityAdd = []string{"ALL"} },
		"--cap-drop=RESET":              func(s *api.ServiceSpec) { s.Task.Container.CapabilityDrop = nil },
		"--publish-add=published=1,target=2,mode=host": func(s *api.ServiceSpec) {
			s.Endpoint.Ports = append(s.Endpoint.Ports, &api.PortConfig{
				Protocol: api.Protocol_PROTOCOL_TCP, TargetPort: 2, PublishedPort: 1, PublishMode: api.PublishMode_PUBLISH_MODE_HOST,
			})
		},
	} {
		t.Run(flags, func(t *testing.T) {
			got, err := update(t, present(t), strings.Fields(flags)...)
			if err != nil {
				t.Fatal(err)
			}
			want := present(t)
			change(want)
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUpdate_WorksOnAnEmptySpec(t *testing.T) {
	got, err := update(t, &api.ServiceSpec{}, "--limit-memory=64M", "--env-add=A=1", "--label-add=a=1", "--update-delay=1s",
		"--publish-add=target=1,mode=host", "--constraint-add=node.id!=x", "--restart-delay=1s")
	if err != nil {
		t.Fatal(err)
	}
	if got.GetUpdate().GetParallelism() != 1 {
		t.Errorf("parallelism: got %d, want Docker's default 1", got.GetUpdate().GetParallelism())
	}
}

// What update can't remove it says, and what it should both add and remove it refuses: but a host, which gets another address so.
func TestUpdate_OfNames(t *testing.T) {
	parsed := func(flags string) *servicespec.Update {
		t.Helper()
		var u servicespec.Update
		set := pflag.NewFlagSet("update", pflag.ContinueOnError)
		u.Register(set)
		if err := set.Parse(strings.Fields(flags)); err != nil {
			t.Fatal(err)
		}
		return &u
	}
	flags := "--host-rm=old --host-rm=db=192.0.2.7 --host-rm=nodb --dns-rm=192.0.2.5 --dns-rm=192.0.2.1 --dns-option-rm=rotate --dns-search-rm=a.test"
	want := []string{
		"the service has no host db:192.0.2.7 to remove", "the service has no host nodb to remove",
		"the service has no DNS server 192.0.2.5 to remove", "the service has no DNS option rotate to remove",
		"the service has no DNS search domain a.test to remove",
	}
	if diff := cmp.Diff(want, parsed(flags).Missing(present(t))); diff != "" {
		t.Error(diff)
	}
	for flags, want := range map[string]string{
		"--dns-add=192.0.2.1 --dns-rm=192.0.2.1":         "--dns-add and --dns-rm both name 192.0.2.1",
		"--dns-option-add=rotate --dns-option-rm=rotate": "--dns-option-add and --dns-option-rm both name rotate",
		"--dns-search-add=a.test --dns-search-rm=a.test": "--dns-search-add and --dns-search-rm both name a.test",
		"--host-add=db:192.0.2.7 --host-rm=db":           "",
	} {
		if err := parsed(flags).Check(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", flags, err, want)
		}
	}
	var u servicespec.Update
	set := pflag.NewFlagSet("update", pflag.ContinueOnError)
	u.Register(set)
	if err := set.Parse([]string{"--host-rm=:192.0.2.1"}); err == nil || !strings.Contains(err.Error(), "names no host") {
		t.Errorf("a host without a name: %v", err)
	}
}

func TestUpdate_RefusesBadInput(t *testing.T) {
	for flags, want := range map[string]string{
		"--image=:": "invalid reference format", "--publish-rm=x": "invalid target port", "--secret-add=nothere": "secret not found",
		"--env-add==": "invalid environment variable", "--restart-condition=x": "write none",
	} {
		_, err := update(t, present(t), strings.Fields(flags)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", flags, err, want)
		}
	}
}

func TestLimits_Network(t *testing.T) {
	present, err := create(t, "app", nil, "--limit-network-bps=10M")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ flag, want string }{
		{"", "in_bps: 10000000 out_bps: 10000000"},
		{"in=500k", "in_bps: 500000 out_bps: 10000000"},
		{"out=1.5G,in=0", "out_bps: 1500000000"},
	} {
		got := present
		if tc.flag != "" {
			if got, err = update(t, present, "--limit-network-bps="+tc.flag); err != nil {
				t.Fatal(err)
			}
		}
		want := spec(t, "task { resources { network_rate { "+tc.want+" } } }").GetTask().GetResources().GetNetworkRate()
		if diff := cmp.Diff(want, got.GetTask().GetResources().GetNetworkRate(), protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", tc.flag, diff)
		}
	}
	if got, err := update(t, present, "--limit-network-bps=0"); err != nil || got.GetTask().GetResources().NetworkRate != nil {
		t.Errorf("after 0: %v, %v", got, err)
	}
	for _, bad := range []string{"fast", "up=1M", "in=", "-1"} {
		if _, err := create(t, "app", nil, "--limit-network-bps="+bad); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestLimits_AreDockerRuns(t *testing.T) {
	got, err := create(t, "app", nil, "--limit-memory=64M", "--memory-swap=-1", "--cpuset-cpus=0-1", "--device-read-bps=/dev/sda:10mb",
		"--device-write-bps=/dev/sda:1024", "--device-read-iops=/dev/disk/by-id/a:b:7", "--device-write-iops=/dev/sda:8")
	if err != nil {
		t.Fatal(err)
	}
	want := spec(t, `annotations {} replicated { replicas: 1 } task {
		container { image: "docker.io/library/app:latest" }
		resources { limits { memory_bytes: 67108864 } memory_swap_bytes: -1 cpuset_cpus: "0-1"
			device_rates { path: "/dev/sda" read_bps: 10485760 write_bps: 1024 write_iops: 8 }
			device_rates { path: "/dev/disk/by-id/a:b" read_iops: 7 } } }`)
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	got, err = update(t, got, "--memory-swap=0", "--device-read-bps=/dev/sda:0", "--device-read-iops=/dev/disk/by-id/a:b:0", "--cpuset-cpus=")
	if err != nil {
		t.Fatal(err)
	}
	want = spec(t, `annotations {} replicated { replicas: 1 } task {
		container { image: "docker.io/library/app:latest" }
		resources { limits { memory_bytes: 67108864 } device_rates { path: "/dev/sda" write_bps: 1024 write_iops: 8 } } }`)
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	for flag, want := range map[string]string{
		"--memory-swap=-2":                       "write a size such as 1g, or -1",
		"--device-read-bps=/dev/sda":             "write PATH:RATE",
		"--device-read-bps=sda:1":                "path of a block device below /dev",
		"--device-read-bps=/dev/../x:1":          "path of a block device below /dev",
		"--device-read-bps=/dev/sda:-1":          "write bytes a second",
		"--device-write-iops=/dev/sda:1mb":       "write operations a second",
		"--device-read-iops=/dev/sda:1e999":      "write operations a second",
		"--device-read-iops=/dev/sda:4294967296": "at most 4294967295",
	} {
		if _, err := create(t, "app", nil, flag); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", flag, err, want)
		}
	}
}
