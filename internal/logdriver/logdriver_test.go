package logdriver_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/logdriver"
)

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		spec *api.LogDriver
		want logdriver.Driver
	}{
		"unset":         {nil, logdriver.Driver{Name: "file", MaxSize: 10 << 20, MaxFiles: 3}},
		"Docker's word": {&api.LogDriver{Name: "json-file"}, logdriver.Driver{Name: "file", MaxSize: 10 << 20, MaxFiles: 3}},
		"files": {
			&api.LogDriver{Name: "file", Options: map[string]string{"max-size": "20m", "max-file": "1"}},
			logdriver.Driver{Name: "file", MaxSize: 20 << 20, MaxFiles: 1},
		},
		"journald": {
			&api.LogDriver{Name: "journald", Options: map[string]string{"tag": "x", "labels": "a,b", "max-size": "1m"}},
			logdriver.Driver{Name: "journald", MaxSize: 1 << 20, MaxFiles: 3, Tag: "x", Labels: []string{"a", "b"}},
		},
		"syslog of the node": {
			&api.LogDriver{Name: "syslog"},
			logdriver.Driver{
				Name: "syslog", MaxSize: 10 << 20, MaxFiles: 3, Tag: "{{.Service.Name}}.{{.Task.Slot}}",
				Syslog: logdriver.Syslog{Network: "unixgram", Address: "/dev/log", Facility: 3, Format: "rfc3164"},
			},
		},
		"syslog elsewhere": {
			&api.LogDriver{Name: "syslog", Options: map[string]string{
				"syslog-address": "tcp+tls://Logs.example", "syslog-facility": "local7", "syslog-tls-ca-cert": "/etc/ca.pem", "tag": "web",
			}},
			logdriver.Driver{
				Name: "syslog", MaxSize: 10 << 20, MaxFiles: 3, Tag: "web",
				Syslog: logdriver.Syslog{Network: "tcp+tls", Address: "logs.example:6514", Facility: 23, Format: "rfc5424", CA: "/etc/ca.pem"},
			},
		},
		"none": {&api.LogDriver{Name: "none"}, logdriver.Driver{Name: "none", MaxSize: 10 << 20, MaxFiles: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := logdriver.Parse(tc.spec)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
		})
	}
}

func TestParse_SaysWhatIsAllowed(t *testing.T) {
	for want, spec := range map[string]*api.LogDriver{
		`unknown log driver "splunk": the drivers are file, journald, none and syslog`:   {Name: "splunk"},
		`unknown option "compress" of the log driver file: it has max-file and max-size`: {Options: map[string]string{"compress": "true"}},
		`unknown option "max-size": the log driver none has none`:                        {Name: "none", Options: map[string]string{"max-size": "1m"}},
		`syslog-facility: invalid facility "auth": it is daemon, ftp, local0, local1, local2, local3, local4, local5, local6, local7, lpr, mail, news, user and uucp`: {
			Name: "syslog", Options: map[string]string{"syslog-facility": "auth"},
		},
		`syslog-address: invalid address "http://x": write unixgram:///dev/log, udp://HOST:PORT, tcp://HOST:PORT or tcp+tls://HOST:PORT`: {
			Name: "syslog", Options: map[string]string{"syslog-address": "http://x"},
		},
		`syslog-tls-ca-cert: is for an address tcp+tls://HOST:PORT only`: {
			Name: "syslog", Options: map[string]string{"syslog-address": "tcp://x", "syslog-tls-ca-cert": "/a"},
		},
		`unknown option "syslog-tls-skip-verify" of the log driver syslog: it has max-file, max-size, syslog-address, syslog-facility, syslog-format, syslog-tls-ca-cert and tag`: {
			Name: "syslog", Options: map[string]string{"syslog-tls-skip-verify": "true"},
		},
		`max-size: invalid size "1k": write 256k to 1g`:                          {Options: map[string]string{"max-size": "1k"}},
		`max-size: invalid size "x": write 256k to 1g`:                           {Options: map[string]string{"max-size": "x"}},
		"max-file: invalid number of files \"0\": write 1 to 100":                {Options: map[string]string{"max-file": "0"}},
		"100 files of 104857600 bytes: the files of a task may have 1g together": {Options: map[string]string{"max-file": "100", "max-size": "100m"}},
		"max-file: invalid number of files \"a\": write 1 to 100\nmax-size: invalid size \"b\": write 256k to 1g": {
			Options: map[string]string{"max-file": "a", "max-size": "b"},
		},
	} {
		if _, err := logdriver.Parse(spec); err == nil || err.Error() != want {
			t.Errorf("%v: got %v, want %s", spec, err, want)
		}
	}
}

func TestCheckDestination(t *testing.T) {
	for text, want := range map[string]string{
		"journald": "", "unixgram:///dev/log": "", "udp://10.0.0.1:514": "", "tcp+tls://[fd00::1]:6514": "",
		"udp://10.0.0.1": "write udp://10.0.0.1:514", "tcp://Logs:99": "write tcp://logs:99",
		"unixgram://host/dev/log": "invalid address", "unixgram:///dev/../x": "invalid address", "udp://": "invalid address", "udp://h:0": "invalid address",
		"tcp://u@h:1": "invalid address", "tcp://h:1/x": "invalid address", "udp://h:1?x": "invalid address", "/dev/log": "invalid address", "*": "invalid address",
	} {
		err := logdriver.CheckDestination(text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
