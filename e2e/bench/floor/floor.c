// floor does for one container what the kernel must do, and nothing else: seven namespaces with mapped ids, control
// groups with limits, an overlay of one id-mapped layer, the mounts and masks of the default configuration, pivot_root,
// execve of a static program, its end, and the removal of the groups. No configuration is read, nothing is remembered.
//
//	floor LAYER JOURNAL GROUP...
//
// For each line on standard input it makes one container and prints how many nanoseconds that took. On the line
// "durable" it also appends a record of the end to JOURNAL and has it on the disk (fdatasync) before it counts as over; on
// the line "exec" it makes no container, but runs the program as it is.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
// From sys/mount.h, which can't be included beside linux/mount.h with older C libraries.
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);
#define DETACH 2

static void die(const char *what) {
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static int must(int r, const char *what) {
	if (r < 0) die(what);
	return r;
}

static void put(const char *dir, const char *file, const char *text) {
	char path[4096];
	snprintf(path, sizeof path, "%s/%s", dir, file);
	int fd = must(open(path, O_WRONLY | O_CLOEXEC), path);
	must(write(fd, text, strlen(text)), path);
	close(fd);
}

// inherit copies a file of a group's parent, as cpuset needs it.
static void inherit(const char *dir, const char *file) {
	char path[8192], text[256];
	snprintf(path, sizeof path, "%s/../%s", dir, file);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return;
	int n = must(read(fd, text, sizeof text - 1), path);
	text[n] = 0;
	close(fd);
	put(dir, file, text);
}

static int attr(int fd, uint64_t set, int userns) {
	struct mount_attr a = {.attr_set = set};
	if (userns >= 0) {
		a.attr_set |= MOUNT_ATTR_IDMAP;
		a.userns_fd = userns;
	}
	return syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &a, sizeof a);
}

// create makes a file system and gives its detached mount.
static int create(const char *type, int attrs, const char *options[][2]) {
	int fs = must(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), type);
	for (int i = 0; options && options[i][0]; i++)
		must(syscall(SYS_fsconfig, fs, options[i][1] ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, options[i][0], options[i][1], 0), options[i][0]);
	must(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), type);
	int fd = must(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attrs), type);
	close(fs);
	return fd;
}

static void attach(int fd, const char *to) {
	must(syscall(SYS_move_mount, fd, "", AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH), to);
	close(fd);
}

// root mounts the layer, with the ids of the container, below an empty file system in memory.
static int root(const char *layer, int userns) {
	int lower = must(syscall(SYS_open_tree, AT_FDCWD, layer, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC), layer);
	must(attr(lower, MOUNT_ATTR_RDONLY, userns), "map ids");
	int mem = create("tmpfs", 0, (const char *[][2]){{"size", "1m"}, {0}});
	must(mkdirat(mem, "upper", 0755), "upper");
	must(mkdirat(mem, "work", 0755), "work");
	int fs = must(syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC), "overlay");
	int up = must(openat(mem, "upper", O_PATH | O_CLOEXEC), "upper"), work = must(openat(mem, "work", O_PATH | O_CLOEXEC), "work");
	must(fchownat(up, "", 100000, 100000, AT_EMPTY_PATH), "upper");
	must(syscall(SYS_fsconfig, fs, FSCONFIG_SET_FD, "lowerdir+", NULL, lower), "lowerdir");
	must(syscall(SYS_fsconfig, fs, FSCONFIG_SET_FD, "upperdir", NULL, up), "upperdir");
	must(syscall(SYS_fsconfig, fs, FSCONFIG_SET_FD, "workdir", NULL, work), "workdir");
	must(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), "overlay");
	int fd = must(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID), "overlay");
	close(fs), close(up), close(work), close(mem), close(lower);
	return fd;
}

static void child(int ctl) {
	char one, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {&one, 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	must(recvmsg(ctl, &msg, MSG_CMSG_CLOEXEC), "receive root");
	int fd = *(int *)CMSG_DATA(CMSG_FIRSTHDR(&msg));
	must(unshare(CLONE_NEWCGROUP), "cgroup namespace");
	must(syscall(SYS_setresgid, 0, 0, 0), "group"), must(syscall(SYS_setresuid, 0, 0, 0), "user"), setsid();
	must(sethostname("floor", 5), "hostname");
	must(mount("", "/", "", (1 << 14 | 1 << 18), NULL), "private"); // MS_REC, MS_PRIVATE
	must(syscall(SYS_move_mount, fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH), "root");
	must(fchdir(fd), "root");
	const int plain = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV;
	attach(create("proc", plain, NULL), "proc");
	attach(create("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, (const char *[][2]){{"mode", "755"}, {"size", "65536k"}, {0}}), "dev");
	static const char *devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
	for (int i = 0; i < 6; i++) {
		char from[64], to[64];
		snprintf(from, sizeof from, "/dev/%s", devices[i]), snprintf(to, sizeof to, "dev/%s", devices[i]);
		must(mknod(to, S_IFREG | 0666, 0), to);
		must(mount(from, to, "", 1 << 12, NULL), to); // MS_BIND
	}
	mkdir("dev/pts", 0755), mkdir("dev/shm", 0755), mkdir("dev/mqueue", 0755);
	attach(create("devpts", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, (const char *[][2]){{"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}, {0}}), "dev/pts");
	attach(create("tmpfs", plain, (const char *[][2]){{"mode", "1777"}, {"size", "65536k"}, {0}}), "dev/shm");
	attach(create("mqueue", plain, NULL), "dev/mqueue");
	must(symlink("/proc/self/fd", "dev/fd"), "fd"), must(symlink("pts/ptmx", "dev/ptmx"), "ptmx");
	attach(create("sysfs", plain | MOUNT_ATTR_RDONLY, NULL), "sys");
	static const char *masked[] = {"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats"};
	for (int i = 0; i < 10; i++) {
		char to[64];
		struct stat st;
		snprintf(to, sizeof to, "proc/%s", masked[i]);
		if (stat(to, &st) < 0) continue;
		if (S_ISDIR(st.st_mode)) attach(create("tmpfs", plain | MOUNT_ATTR_RDONLY, NULL), to);
		else must(mount("/dev/null", to, "", 1 << 12, NULL), to);
	}
	if (access("sys/firmware", F_OK) == 0) attach(create("tmpfs", plain | MOUNT_ATTR_RDONLY, NULL), "sys/firmware");
	static const char *readonly[] = {"bus", "fs", "irq", "sys", "sysrq-trigger"};
	for (int i = 0; i < 5; i++) {
		char to[64];
		snprintf(to, sizeof to, "proc/%s", readonly[i]);
		int t = syscall(SYS_open_tree, AT_FDCWD, to, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		if (t < 0) continue;
		must(attr(t, plain | MOUNT_ATTR_RDONLY, -1), to);
		attach(t, to);
	}
	must(attr(fd, MOUNT_ATTR_RDONLY, -1), "read-only root");
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", DETACH), "old root"), must(chdir("/"), "root");
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges");
	char *argv[] = {"/busybox", "true", NULL}, *env[] = {"PATH=/", NULL};
	execve("/busybox", argv, env);
	die("execve");
}

static void container(const char *layer, int journal, int groups, char **group) {
	char name[64], path[8192], dirs[16][4096];
	static int count;
	snprintf(name, sizeof name, "floor-%d-%d", getpid(), count++);
	for (int i = 0; i < groups; i++) {
		snprintf(dirs[i], sizeof dirs[i], "%s/%s", group[i], name);
		must(mkdir(dirs[i], 0755), dirs[i]);
		inherit(dirs[i], "cpuset.cpus"), inherit(dirs[i], "cpuset.mems");
		const char *limits[][2] = {{"memory.limit_in_bytes", "268435456"}, {"memory.max", "268435456"}, {"pids.max", "4096"}, {"cpu.cfs_quota_us", "100000"}, {"cpu.max", "100000 100000"}};
		for (int l = 0; l < 5; l++) {
			snprintf(path, sizeof path, "%s/%s", dirs[i], limits[l][0]);
			if (access(path, F_OK) == 0) put(dirs[i], limits[l][0], limits[l][1]);
		}
	}
	int pair[2], pidfd = -1;
	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), "socketpair");
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET,
		.pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD,
	};
	pid_t pid = must(syscall(SYS_clone3, &args, sizeof args), "clone3");
	if (pid == 0) child(pair[1]);
	char text[64];
	snprintf(text, sizeof text, "%d", pid);
	for (int i = 0; i < groups; i++) put(dirs[i], "cgroup.procs", text);
	snprintf(path, sizeof path, "/proc/%d", pid);
	put(path, "uid_map", "0 100000 65536"), put(path, "gid_map", "0 100000 65536");
	snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
	int userns = must(open(path, O_RDONLY | O_CLOEXEC), path), fd = root(layer, userns);
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {"x", 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
	*(int *)CMSG_DATA(c) = fd;
	must(sendmsg(pair[0], &msg, 0), "send root");
	close(fd), close(userns), close(pair[0]), close(pair[1]);
	int status;
	must(waitpid(pid, &status, 0), "wait");
	close(pidfd);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "floor: the container ended with status %#x\n", status);
		exit(1);
	}
	if (journal >= 0) {
		char record[256] = "{}";
		must(write(journal, record, sizeof record), "journal"), must(fdatasync(journal), "journal");
	}
	for (int i = 0; i < groups; i++)
		for (int try = 0; rmdir(dirs[i]) < 0; try++) {
			if (errno != EBUSY || try > 2000) die(dirs[i]);
			usleep(100);
		}
}

// process runs the layer's program with no walls around it.
static void process(const char *layer) {
	char path[4096];
	snprintf(path, sizeof path, "%s/busybox", layer);
	pid_t pid = must(fork(), "fork");
	if (pid == 0) {
		char *argv[] = {"/busybox", "true", NULL}, *env[] = {NULL};
		execve(path, argv, env);
		die(path);
	}
	must(waitpid(pid, NULL, 0), "wait");
}

int main(int argc, char **argv) {
	if (argc < 3 || argc - 3 > 16) {
		fprintf(stderr, "usage: floor LAYER JOURNAL GROUP...\n");
		return 2;
	}
	int journal = must(open(argv[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), argv[2]);
	char line[64];
	while (fgets(line, sizeof line, stdin)) {
		struct timespec a, b;
		clock_gettime(CLOCK_MONOTONIC, &a);
		if (strncmp(line, "exec", 4) == 0) process(argv[1]);
		else container(argv[1], strncmp(line, "durable", 7) == 0 ? journal : -1, argc - 3, argv + 3);
		clock_gettime(CLOCK_MONOTONIC, &b);
		printf("%lld\n", (b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec);
		fflush(stdout);
	}
	return 0;
}
