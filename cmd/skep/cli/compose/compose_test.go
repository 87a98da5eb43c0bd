package compose_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/compose"
	"github.com/skep-io/skep/internal/fault"
)

// stackOf returns the stack demo of a compose file, what was warned of, and what was wrong.
func stackOf(t *testing.T, text string, environ ...string) (*compose.Stack, []string, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, content := range map[string]string{"compose.yml": text, "site.conf": "listen 80", "db.txt": "pw", "web.env": "FROM_FILE=1\nA=file\n", "seccomp.json": "{}"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	project, said, err := compose.Load(t.Context(), compose.Source{Files: []string{"compose.yml"}, Environ: environ, Name: "demo"})
	if err != nil {
		return nil, nil, err
	}
	stack, warnings, err := compose.NewStack(t.Context(), project)
	return stack, append(said, warnings...), err
}

// named makes an id of a name.
func named(_ context.Context, kind, name string) (string, string, error) {
	return kind + "-" + name, name, nil
}

// fileWith returns a compose file whose service has these keys.
func fileWith(keys string) string {
	indented := "    " + strings.ReplaceAll(strings.TrimSpace(keys), "\n", "\n    ")
	return "services:\n  web:\n    image: shop/web\n" + indented + "\nvolumes: {data: {}, shared: {external: true}}\n" +
		"configs: {site: {file: site.conf}}\nsecrets: {db: {file: db.txt}, key: {external: true, name: team_key}}\n"
}

// specOf returns the spec of a service with these keys.
func specOf(t *testing.T, keys string) *api.ServiceSpec {
	t.Helper()
	stack, _, err := stackOf(t, fileWith(keys))
	if err != nil {
		t.Fatal(err)
	}
	spec, err := stack.Services[0].Spec(t.Context(), named)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// specCase is what keys of a service make of its spec, beside what an image alone makes.
type specCase struct{ keys, want string }

func specCases() []specCase {
	return []specCase{
		{"command: [serve, --all now]", `task{container{args:"serve" args:"--all now"}}`},
		{"command: serve --name 'a b'", `task{container{args:"serve" args:"--name" args:"a b"}}`},
		{"entrypoint: [/bin/run]", `task{container{command:"/bin/run"}}`},
		{"environment: {B: two, A: one, C: }", `task{container{env:"A=one" env:"B=two"}}`},
		{"env_file: [web.env]\nenvironment: [A=key]", `task{container{env:"A=key" env:"FROM_FILE=1"}}`},
		{"user: \"1000:1000\"\nworking_dir: /srv\nhostname: h", `task{container{user:"1000:1000" dir:"/srv" hostname:"h"}}`},
		{"labels: {a: b, \"c,d\": \"e=f\"}", `task{container{labels{key:"a" value:"b"} labels{key:"c,d" value:"e=f"}}}`},
		{"init: true\nread_only: true\ntty: true", `task{container{init:true read_only:true tty:true}}`},
		{"tmpfs: [/run, \"/tmp:size=1m\"]", `task{container{mounts{type:MOUNT_TYPE_TMPFS target:"/run"} mounts{type:MOUNT_TYPE_TMPFS target:"/tmp" tmpfs_size_bytes:1048576}}}`},
		{"stop_signal: SIGINT\nstop_grace_period: 1m30s", `task{container{stop_signal:"SIGINT" stop_grace_period{seconds:90}}}`},
		{"cap_add: [net_admin]\ncap_drop: [ALL]", `task{container{capability_add:"CAP_NET_ADMIN" capability_drop:"ALL"}}`},
		{"sysctls: {net.core.somaxconn: 1024}", `task{container{sysctls{key:"net.core.somaxconn" value:"1024"}}}`},
		{"ulimits: {nproc: 100, nofile: {soft: 10, hard: 20}}", `task{container{ulimits{name:"nofile" soft:10 hard:20} ulimits{name:"nproc" soft:100 hard:100}}}`},
		{"group_add: [mail, \"5\"]\nshm_size: 1m\noom_score_adj: 5", `task{container{groups:"mail" groups:"5" shm_size_bytes:1048576 oom_score_adj:5}}`},
		{
			"dns: 192.0.2.1\ndns_opt: [ndots:2]\ndns_search: [a.test, b.test]\nextra_hosts: [\"db:192.0.2.9\", \"a=::1\", \"db:192.0.2.8\"]",
			`task{container{hosts:"::1 a" hosts:"192.0.2.9 db" hosts:"192.0.2.8 db" dns{nameservers:"192.0.2.1" options:"ndots:2" search:"a.test" search:"b.test"}}}`,
		},
		{"dns_search: .\nextra_hosts: {a: \"[2001:db8::1]\"}", `task{container{hosts:"2001:db8::1 a" dns{search:"."}}}`},
		{"storage_opt: {size: 1g}", `task{container{storage_size_bytes:1073741824}}`},
		{"security_opt: [\"seccomp:unconfined\", \"no-new-privileges:false\"]", `task{container{privileges{seccomp{mode:SECCOMP_MODE_UNCONFINED} new_privileges:true}}}`},
		{"security_opt: [\"seccomp=seccomp.json\"]", `task{container{privileges{seccomp{mode:SECCOMP_MODE_CUSTOM profile:"{}"}}}}`},
		{"pid: host\nipc: host\nnetwork_mode: host\nuserns_mode: host", `task{container{privileges{pid:NAMESPACE_MODE_HOST ipc:NAMESPACE_MODE_HOST network:NAMESPACE_MODE_HOST userns:USERNS_MODE_HOST}}}`},
		{"x-grants: [mail]", `task{container{grants{grant_name:"mail"}}}`},
		{"logging: {driver: journald, options: {tag: a}}", `task{log_driver{name:"journald" options{key:"tag" value:"a"}}}`},
		{"healthcheck: {test: [CMD, check, \"a b\"], interval: 2s, retries: 3}", `task{container{health{test:"CMD" test:"check" test:"a b" interval{seconds:2} retries:3}}}`},
		{
			"healthcheck: {test: curl x, timeout: 1s, start_period: 3s, start_interval: 4s}",
			`task{container{health{test:"CMD-SHELL" test:"curl x" timeout{seconds:1} start_period{seconds:3} start_interval{seconds:4}}}}`,
		},
		{"healthcheck: {disable: true}", `task{container{health{test:"NONE"}}}`},
		{"volumes: [\"data:/data:ro\", shared:/shared]", `task{container{mounts{type:MOUNT_TYPE_VOLUME source:"demo_data" target:"/data" read_only:true} mounts{type:MOUNT_TYPE_VOLUME source:"shared" target:"/shared"}}}`},
		{
			"volumes: [{type: volume, source: data, target: /d, volume: {nocopy: true, subpath: sub}}]",
			`task{container{mounts{type:MOUNT_TYPE_VOLUME source:"demo_data" target:"/d" volume_no_copy:true volume_subpath:"sub"}}}`,
		},
		{
			"volumes: [{type: bind, source: \"/a,b\", target: /b, bind: {propagation: rslave, recursive: disabled}}]",
			`task{container{mounts{type:MOUNT_TYPE_BIND source:"/a,b" target:"/b" bind_propagation:MOUNT_PROPAGATION_RSLAVE bind_recursive:BIND_RECURSIVE_DISABLED}}}`,
		},
		{"volumes: [{type: tmpfs, target: /t, tmpfs: {size: 2m, mode: 0700}}]", `task{container{mounts{type:MOUNT_TYPE_TMPFS target:"/t" tmpfs_size_bytes:2097152 tmpfs_mode:448}}}`},
		{"volumes: [{type: image, source: tools, target: /tools, image: {subpath: bin}}]", `task{container{mounts{type:MOUNT_TYPE_IMAGE source:"tools" target:"/tools" image_subpath:"bin"}}}`},
		{
			"secrets: [db, {source: key, target: /etc/key, uid: \"5\", gid: \"6\", mode: 0400}]",
			`task{container{secrets{secret_id:"secret-demo_db" secret_name:"demo_db" target{name:"db" mode:292}} secrets{secret_id:"secret-team_key" secret_name:"team_key" target{name:"/etc/key" uid:5 gid:6 mode:256}}}}`,
		},
		{"configs: [site]", `task{container{configs{secret_id:"config-demo_site" secret_name:"demo_site" target{name:"site" mode:292}}}}`},
		{"configs: [{source: site, target: /etc/site.conf, uid: \"5\", gid: \"6\", mode: 0440}]", `task{container{configs{secret_id:"config-demo_site" secret_name:"demo_site" target{name:"/etc/site.conf" uid:5 gid:6 mode:288}}}}`},
		{
			"ports: [{target: 80, published: 8080, mode: host}, {target: 53, protocol: udp, mode: host}]",
			`endpoint{ports{target_port:80 published_port:8080 protocol:PROTOCOL_TCP publish_mode:PUBLISH_MODE_HOST} ports{target_port:53 protocol:PROTOCOL_UDP publish_mode:PUBLISH_MODE_HOST}}`,
		},
		{"deploy: {replicas: 0, labels: {a: b}}", `annotations{labels{key:"a" value:"b"}} replicated{}`},
		{"scale: 3", `replicated{replicas:3}`},
		{"deploy: {mode: global}", `global{}`},
		{"deploy: {mode: replicated-job, replicas: 4}", `replicated_job{total_completions:4}`},
		{"deploy: {mode: global-job}", `global_job{}`},
		{
			"deploy: {placement: {constraints: [node.role==worker], preferences: [{spread: node.labels.zone}], max_replicas_per_node: 2}}",
			`task{placement{constraints:"node.role==worker" preferences{spread:"node.labels.zone"} max_replicas:2}}`,
		},
		{
			"deploy: {resources: {limits: {cpus: \"0.5\", memory: 50M, pids: 9}, reservations: {cpus: \"0.25\", memory: 20M, generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]}}}",
			`task{resources{limits{nano_cpus:500000000 memory_bytes:52428800 pids:9} reservations{nano_cpus:250000000 memory_bytes:20971520 generic{kind:"gpu" count:2}}}}`,
		},
		{
			"cpus: 1.5\nmem_limit: 1m\nmem_reservation: 512k\npids_limit: 7\nmemswap_limit: 2m\ncpuset: 0-1",
			`task{resources{limits{nano_cpus:1500000000 memory_bytes:1048576 pids:7} reservations{memory_bytes:524288} memory_swap_bytes:2097152 cpuset_cpus:"0-1"}}`,
		},
		{
			"deploy: {restart_policy: {condition: on-failure, delay: 3s, max_attempts: 2, window: 5s}}",
			`task{restart{condition:RESTART_CONDITION_ON_FAILURE delay{seconds:3} max_attempts:2 window{seconds:5}}}`,
		},
		{"restart: \"no\"", `task{restart{condition:RESTART_CONDITION_NONE}}`},
		{"restart: on-failure:3", `task{restart{condition:RESTART_CONDITION_ON_FAILURE max_attempts:3}}`},
		{
			"deploy: {update_config: {parallelism: 0, delay: 2s, monitor: 3s, failure_action: rollback, max_failure_ratio: 0.5, order: start-first}}",
			`update{delay{seconds:2} monitor{seconds:3} failure_action:FAILURE_ACTION_ROLLBACK max_failure_ratio:0.5 order:UPDATE_ORDER_START_FIRST}`,
		},
		{
			"deploy: {rollback_config: {parallelism: 2, delay: 2s, monitor: 3s, failure_action: continue, max_failure_ratio: 0.25, order: stop-first}}",
			`rollback{parallelism:2 delay{seconds:2} monitor{seconds:3} failure_action:FAILURE_ACTION_CONTINUE max_failure_ratio:0.25 order:UPDATE_ORDER_STOP_FIRST}`,
		},
		{"deploy: {update_config: {order: start-first}}", `update{parallelism:1 delay{} order:UPDATE_ORDER_START_FIRST}`},
	}
}

// TestSpec says what becomes of each key: what is written is all that differs from a service that has an image alone.
func TestSpec(t *testing.T) {
	for _, test := range specCases() {
		t.Run(test.keys, func(t *testing.T) {
			want := specOf(t, "tty: false")
			patch := &api.ServiceSpec{}
			if err := prototext.Unmarshal([]byte(test.want), patch); err != nil {
				t.Fatal(err)
			}
			if patch.GetReplicated() != nil || patch.GetGlobal() != nil || patch.GetReplicatedJob() != nil || patch.GetGlobalJob() != nil {
				want.Replicated = nil
			}
			proto.Merge(want, patch)
			if diff := cmp.Diff(want, specOf(t, test.keys), protocmp.Transform()); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
		})
	}
}

// TestSpec_ShowsEveryKey demands a case above for each key of a service that is taken.
func TestSpec_ShowsEveryKey(t *testing.T) {
	elsewhere := map[string]bool{ // where the library has done what they say, and the order of services
		"services.name": true, "services.profiles": true, "services.extends": true, "services.extends.file": true, "services.extends.service": true,
		"services.env_file": true, "services.env_file.path": true, "services.env_file.required": true, "services.env_file.format": true,
		"services.label_file": true, "services.depends_on": true, "services.depends_on.condition": true, "services.depends_on.required": true,
	}
	shown := map[string]bool{}
	for _, test := range specCases() {
		if _, _, err := stackOf(t, fileWith(test.keys)); err != nil { // leaves the file in the working directory
			t.Fatal(err)
		}
		project, _, err := compose.Load(t.Context(), compose.Source{Files: []string{"compose.yml"}, Name: "demo"})
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range compose.TakenKeys() {
			shown[path] = shown[path] || compose.Uses(project, path)
		}
	}
	for _, path := range compose.TakenKeys() {
		if strings.HasPrefix(path, "services.") && !shown[path] && !elsewhere[path] {
			t.Errorf("no case of TestSpec has %s: say what it makes of a spec", path)
		}
	}
}

func TestSpec_OfAnImageAlone(t *testing.T) {
	want := &api.ServiceSpec{}
	if err := prototext.Unmarshal([]byte(`annotations{name:"demo_web" labels{key:"com.docker.stack.namespace" value:"demo"} labels{key:"com.docker.stack.image" value:"shop/web"}}
		task{container{image:"docker.io/shop/web:latest" labels{key:"com.docker.stack.namespace" value:"demo"}}} replicated{replicas:1}`), want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, specOf(t, "tty: false"), protocmp.Transform()); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

// TestNewStack_Refuses keeps I2: what can't be had is said by the service and the key.
func TestNewStack_Refuses(t *testing.T) {
	for _, test := range []struct{ file, want string }{
		{"services: {web: {image: x, privileged: true}}", "services.web.privileged: no container is privileged: write cap_add"},
		{"services: {web: {image: x, devices: [/dev/fuse]}}", "services.web.devices: a device comes by a grant"},
		{"services: {web: {image: x, networks: [front]}}\nnetworks: {front: {}}", "service web: networks.front: there are no overlay networks yet"},
		{"services: {web: {image: x, networks: {default: {aliases: [a]}}}}", "services.web.networks.default.aliases: there are no overlay networks yet"},
		{"services: {web: {image: x}}\nnetworks: {default: {driver: overlay}}", "networks.default.driver: there are no overlay networks yet"},
		{"services: {web: {image: x, network_mode: none}}", "service web: network_mode: "},
		{"services: {web: {image: x, volumes_from: [db]}, db: {image: y}}", "services.web.volumes_from: share a named volume instead"},
		{"services: {web: {image: x, cpu_shares: 5}}", "services.web.cpu_shares: write deploy.resources.limits and reservations instead"},
		{"services: {web: {image: x, ports: [\"8080:80\"]}}", `service web: ports: 80: publishing through the ingress network needs an overlay network, which skep does not have yet: write target: 80, published: "8080", protocol: tcp, mode: host`},
		{"services: {web: {image: x, ports: [{target: 80, published: 8080, host_ip: 127.0.0.1, mode: host}]}}", "services.web.ports[0].host_ip: a port is published on all addresses"},
		{"services: {web: {build: .}}", "service web: image: there is none: images are not built here"},
		{"services: {web: {image: X Y}}", "service web: invalid reference format"},
		{"services: {web: {image: x, volumes: [\"data:/d\"]}}\nvolumes: {data: {driver: nfs}}", `service web: volumes: /d: volume data: the driver "nfs" can't be had`},
		{"services: {web: {image: x, volumes: [\"data:/d\"]}}\nvolumes: {data: {driver_opts: {type: nfs}}}", "volumes.data.driver_opts: volumes are directories of their nodes"},
		{"services: {web: {image: x, deploy: {update_config: {failure_action: stop}}}}", `service web: invalid --update-failure-action "stop": write pause, continue or rollback`},
		{"services: {web: {image: x, extra_hosts: [\"host.docker.internal:host-gateway\"]}}", "service web: extra_hosts: invalid IP address in add-host: \"host-gateway\": containers don't reach their node"},
		{"services: {web: {image: x, restart: sometimes}}", `service web: restart: unknown policy "sometimes"`},
		{"services: {web: {image: x, secrets: [db]}}\nsecrets: {db: {file: gone.txt}}", "secret db: file: open "},
		{"services: {web: {image: x, secrets: [db]}}\nsecrets: {db: {environment: DB_PW}}", "secret db: the variable DB_PW is not set or empty"},
		{"services: {web: {image: x, secrets: [db]}}", `service "web" refers to undefined secret db`},
		{"services: {web: {image: x, depends_on: [db]}}", `service "web" depends on undefined service "db"`},
		{"services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}", "dependency cycle detected"},
		{"services: {web: {image: \"x:${TAG:?say which}\"}}", "required variable TAG is missing a value: say which"},
		{"services: {web: {image: x, imagine: y}}", "services.web.imagine: the Compose Specification has no such key"},
		{"services: {web: {image: x, x-grants: mail}}", "service web: x-grants: write a list of the names of grants"},
		{"jobs: {a: {image: x, triggers: {manual: true}}}\nservices: {web: {image: x}}", "jobs: write a service with deploy.mode replicated-job or global-job"},
		{"services: {web: {image: x, depends_on: {db: {condition: service_completed_successfully}}}, db: {image: x}}", "service demo_web: depends_on: demo_db is started again whenever it ends"},
		{"services: [", "compose.yml: failed to parse"},
		{"# nothing", "compose.yml: "},
	} {
		t.Run(test.file, func(t *testing.T) {
			_, _, err := stackOf(t, test.file)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if kind := fault.KindOf(err); kind != fault.Invalid && kind != fault.NotFound {
				t.Errorf("the kind is %v", kind)
			}
		})
	}
}

func TestNewStack_WarnsOfWhatIsIgnored(t *testing.T) {
	_, warnings, err := stackOf(t, "version: \"3.8\"\nservices: {web: {image: \"x$TAG\", build: ., container_name: mine}, db: {image: x, expose: [\"80\"]}}")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`The "TAG" variable is not set. Defaulting to a blank string.`, "Ignoring unsupported options: build, container_name, expose"}
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

// TestNewStack_OrdersServices keeps I4.
func TestNewStack_OrdersServices(t *testing.T) {
	stack, _, err := stackOf(t, `services:
  api: {image: x, depends_on: {db: {condition: service_healthy}, migrate: {condition: service_completed_successfully}, debug: {condition: service_started, required: false}}}
  web: {image: x, depends_on: [api]}
  migrate: {image: x, depends_on: [db], deploy: {mode: replicated-job}}
  db: {image: x}
  debug: {image: x, profiles: [debug]}
  alone: {image: x}`)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, service := range stack.Services {
		names = append(names, service.Name)
	}
	if got, want := strings.Join(names, " "), "demo_alone demo_db demo_migrate demo_api demo_web"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	want := []compose.Need{{Name: "demo_db", Condition: compose.Healthy}, {Name: "demo_migrate", Condition: compose.Completed}}
	if diff := cmp.Diff(want, stack.Services[3].Needs); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

func TestNewStack_ReadsValues(t *testing.T) {
	stack, _, err := stackOf(t, `services: {web: {image: x}}
configs: {site: {file: site.conf, template_driver: golang}, inline: {content: "a: $WHO", labels: {a: b}}}
secrets: {db: {environment: DB_PW}, team: {external: true}, other: {external: true, name: theirs}}`, "DB_PW=s3cret", "WHO=me")
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"com.docker.stack.namespace": "demo"}
	wantConfigs := []compose.Value{
		{Name: "demo_inline", Labels: map[string]string{"a": "b", "com.docker.stack.namespace": "demo"}, Data: []byte("a: me")},
		{Name: "demo_site", Labels: labels, Template: "golang", Data: []byte("listen 80")},
	}
	if diff := cmp.Diff(wantConfigs, stack.Configs); diff != "" {
		t.Errorf("configs: want -, got +\n%s", diff)
	}
	wantSecrets := []compose.Value{{Name: "demo_db", Labels: labels, Data: []byte("s3cret")}, {Name: "theirs", External: true}, {Name: "team", External: true}}
	if diff := cmp.Diff(wantSecrets, stack.Secrets); diff != "" {
		t.Errorf("secrets: want -, got +\n%s", diff)
	}
}

func TestLoad_MergesFilesAndIncludes(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"a.yml": "include: [sub/part.yml]\nservices: {web: {image: \"x:1\", environment: {A: a}}}", "b.yml": "services: {web: {image: \"x:2\", extends: {file: base.yml, service: base}}}",
		"base.yml": "services: {base: {image: y, user: me}}", "sub/part.yml": "services: {part: {image: z, env_file: [part.env]}}", "sub/part.env": "FROM=sub",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	project, _, err := compose.Load(t.Context(), compose.Source{Files: []string{"a.yml", "-"}, Stdin: strings.NewReader("services: {web: {image: \"x:2\", extends: {file: base.yml, service: base}}}"), Name: "demo"})
	if err != nil {
		t.Fatal(err)
	}
	web, part := project.Services["web"], project.Services["part"]
	if web.Image != "x:2" || web.User != "me" || *web.Environment["A"] != "a" || *part.Environment["FROM"] != "sub" {
		t.Errorf("got web %+v and part %+v", web.ContainerSpec, part.ContainerSpec)
	}
}

func TestLoad_Limits(t *testing.T) {
	big := strings.NewReader("# " + strings.Repeat("x", 1<<20))
	_, _, err := compose.Load(t.Context(), compose.Source{Files: []string{"-"}, Stdin: big, Name: "demo"})
	if err == nil || !strings.Contains(err.Error(), "compose file - is larger than 1048576 bytes") {
		t.Errorf("a file that is too large: got %v", err)
	}
	_, _, err = compose.Load(t.Context(), compose.Source{Files: make([]string, 65), Name: "demo"})
	if err == nil || !strings.Contains(err.Error(), "65 compose files, more than 64") {
		t.Errorf("too many files: got %v", err)
	}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("large.yml", make([]byte, 1<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"include: [large.yml]\nservices: {web: {image: x}}":                           "large.yml is larger than 1048576 bytes",
		"services: {web: {extends: {file: large.yml, service: a}}}":                   "large.yml is larger than 1048576 bytes",
		"services: {web: {image: x, env_file: [large.yml]}}":                          "service web: ",
		"services: {web: {image: x, label_file: [/dev/null]}}":                        "/dev/null is no regular file",
		"services: {web: {image: x, env_file: [{path: /dev/zero, required: false}]}}": "/dev/zero is no regular file",
		"include: [/dev/zero]\nservices: {web: {image: x}}":                           "/dev/zero is no regular file",
	} {
		_, _, err = compose.Load(t.Context(), compose.Source{Files: []string{"-"}, Stdin: strings.NewReader(text), Name: "demo"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	bomb := "x-a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
	for i := range 9 {
		name := string(rune('a' + i))
		bomb += "x-" + string(rune('b'+i)) + ": &" + string(rune('b'+i)) + " [" + strings.Repeat("*"+name+", ", 9) + "*" + name + "]\n"
	}
	_, _, err = compose.Load(t.Context(), compose.Source{Files: []string{"-"}, Stdin: strings.NewReader(bomb + "services: {web: {image: x}}"), Name: "demo"})
	if err == nil {
		t.Error("a file whose anchors multiply was loaded")
	}
}
