// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * What processes read of watched files, at the price of one hook on the way out of a system call.
 *
 * A read ends in `sys_exit`: the call number says which descriptor, the descriptor which file, and the position after
 * the call, less what it returned, where. Reads that continue each other grow one extent; the extents of one open
 * file gather in a slot of this CPU, and 32 of them leave as one event. User space also copies the slots from shared
 * memory, or it would never hear of the last extents of an idle reader.
 *
 * A file is watched if a directory above it is a watched root, told by the directory's inode: so bind mounts,
 * chroots and other mount namespaces change nothing. The verdict is kept in the slot, or in a table of unwatched
 * files, until a rename or a new root starts another epoch.
 *
 * Mapped files are seen by their first touches. Blocked time is what passes between switched out and switched in
 * inside a read. Forks, execs and exits tell which reads are one run.
 *
 * The light tier leaves `sys_exit` alone and hooks the page cache instead (`pages`): other system calls cost nothing
 * then, and what is told is pages, without opens, closes, direct reads and tmpfs.
 *
 * Nothing here waits, and nothing a program can do makes a probe fail it: what cannot be kept is counted in `tallies`.
 */
#include <linux/aio_abi.h>

#include "kernel.h"
#include "calls.h"
#include "events.h"

char LICENSE[] SEC("license") = "GPL";

const volatile u32 own_process = 0;
const volatile u32 page_shift = 12;
const volatile u8 call_kinds[CALLS_MAX] = { CALL_TABLE };

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLOTS_PER_CPU);
	__type(key, u32);
	__type(value, struct slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLOTS_PER_CPU);
	__type(key, u32);
	__type(value, struct taken);
} takens SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct tally);
} tallies SEC(".maps");

struct unwatched {
	u64 file;
	u64 inode;
	u32 process;
	u32 epoch;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, UNWATCHED_PER_CPU);
	__type(key, u32);
	__type(value, struct unwatched);
} unwatched SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, struct root);
} roots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, u32);
	__type(value, u8);
} skipped SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ANNOUNCED_ENTRIES);
	__type(key, u32);
	__type(value, u64);
} announced SEC(".maps");

struct wait {
	u64 since_ns;
	u64 total_ns;
	s32 fd;
	u32 device;
	u64 fault_file_id;
	u64 fault_offset;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, WAITS_MAX);
	__type(key, u32);
	__type(value, struct wait);
} waits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct path_event);
} path_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct process_event);
} process_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct identity);
} identities SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct control);
} controls SEC(".maps");

static __always_inline struct control *control_here(void)
{
	u32 zero = 0;
	return bpf_map_lookup_elem(&controls, &zero);
}

static __always_inline u64 mix(u64 x)
{
	x ^= x >> 32;
	x *= 0x9e3779b97f4a7c15ULL;
	x ^= x >> 29;
	return x;
}

/* The verifier computes with no pointer, but lets its low half be copied: 32 bits are enough to spread by. */
static __always_inline u32 low_half(const void *address)
{
	u32 half;

	asm volatile("%0 = %1" : "=w"(half) : "w"((u32)(u64)address));
	return half;
}

static __always_inline u64 bit_of(const void *address)
{
	return 1ULL << (mix(low_half(address)) >> 58);
}

static __always_inline struct tally *tally_here(void)
{
	u32 cpu = bpf_get_smp_processor_id();
	return bpf_map_lookup_elem(&tallies, &cpu);
}

/* ---- slots ---- */

static __always_inline u32 slot_index(u32 process, u32 what)
{
	u32 cpu = bpf_get_smp_processor_id();
	return cpu * SLOTS_PER_CPU + (mix(((u64)process << 32) ^ what) >> 40) % SLOTS_PER_CPU;
}

static __always_inline void slot_begin(struct slot *slot)
{
	slot->begun++;
	barrier();
}

static __always_inline void slot_done(struct slot *slot)
{
	barrier();
	slot->done = slot->begun;
}

/* Gives the filling out and leaves the slot empty for the same file. */
static __noinline int slot_emit(struct slot *slot)
{
	u32 count = slot->count;

	if (count > EXTENTS_MAX)
		return 0;
	if (count || (slot->flags & (SLOT_OPENED | SLOT_CLOSED))) {
		u64 bytes = offsetof(struct slot, extents) + count * sizeof(struct extent);

		if (bpf_ringbuf_output(&events, slot, bytes, BPF_RB_NO_WAKEUP)) {
			struct tally *tally = tally_here();
			u32 key = (u32)slot->cpu * SLOTS_PER_CPU + slot->index;
			struct taken *taken = bpf_map_lookup_elem(&takens, &key);

			if (tally) {
				u64 copied = taken && taken->cookie == slot->cookie ? taken->calls : 0;

				tally->lost_slots++;
				if (slot->calls > copied)
					tally->lost_calls += slot->calls - copied;
			}
		}
	}
	slot_begin(slot);
	slot->cookie++;
	slot->count = 0;
	slot->calls = 0;
	slot->flags = 0;
	slot_done(slot);
	return 0;
}

static __always_inline void slot_add(struct slot *slot, u64 offset, u64 length, u32 op, u32 blocked_us, u32 missed)
{
	u32 count = slot->count;
	struct extent *last;

	if (count >= EXTENTS_MAX) {
		slot_emit(slot);
		count = 0;
	}
	slot_begin(slot);
	if (count) {
		last = &slot->extents[(count - 1) % EXTENTS_MAX];
		if (last->offset + last->length == offset && last->op == op) {
			last->length += length;
			last->calls++;
			last->blocked_us += blocked_us;
			last->missed |= missed;
			slot->calls++;
			slot_done(slot);
			return;
		}
	}
	last = &slot->extents[count % EXTENTS_MAX];
	last->offset = offset;
	last->length = length;
	last->calls = 1;
	last->blocked_us = blocked_us;
	last->jiffies = bpf_jiffies64();
	last->op = op;
	last->missed = missed;
	slot->count = count + 1;
	slot->calls++;
	slot_done(slot);
}

/* ---- which file ---- */

struct verdict {
	u64 file_id;
	u64 inode_number;
	u32 root;
};

/*
 * Walks from the file's name up to a watched root. The id is made of the file's inode and of all names on the way, so
 * that a rename makes another id and two hard links stay apart. 0 if no root is above it.
 */
static __always_inline u32 find_root(const struct control *control, struct dentry *dentry, struct verdict *out)
{
	u64 names = 0;

	for (int depth = 0; depth < DEPTH_MAX; depth++) {
		struct dentry *parent = FIELD(dentry, d_parent);
		struct inode *inode;
		u64 directory;

		names = mix(names ^ FIELD(dentry, d_name.hash_len));
		if (parent == dentry)
			return 0;
		inode = FIELD(parent, d_inode);
		if (control->root_bits & bit_of(inode)) {
			struct root *root;

			directory = (u64)inode;
			root = bpf_map_lookup_elem(&roots, &directory);
			if (root && root->inode_number == FIELD(inode, i_ino)) {
				out->root = root->id;
				out->file_id = mix(names ^ mix(((u64)low_half(inode) << 32) ^ out->inode_number));
				return 1;
			}
		}
		dentry = parent;
	}
	return 0;
}

/* Tells the path once for each file; the table forgets when two files meet in one entry, and then it is told again. */
static __noinline int announce(struct dentry *dentry, struct verdict *verdict)
{
	struct control *control = control_here();
	u32 index = verdict->file_id % ANNOUNCED_ENTRIES, zero = 0, length = 0;
	u64 *known = bpf_map_lookup_elem(&announced, &index);
	struct path_event *event = bpf_map_lookup_elem(&path_scratch, &zero);

	if (!control || !known || !event || *known == verdict->file_id)
		return 0;
	for (int depth = 0; depth < DEPTH_MAX; depth++) {
		struct dentry *parent = FIELD(dentry, d_parent);
		struct inode *inode = FIELD(parent, d_inode);
		u64 directory = (u64)inode;
		long copied;

		if (length >= PATH_BUFFER_BYTES)
			break;
		copied = bpf_probe_read_kernel_str(&event->names[length], NAME_BYTES, FIELD(dentry, d_name.name));
		if (copied < 0)
			break;
		length += copied & (NAME_BYTES * 2 - 1);
		if (parent == dentry)
			break;
		if (control->root_bits & bit_of(inode)) {
			struct root *root = bpf_map_lookup_elem(&roots, &directory);

			if (root && root->id == verdict->root) {
				event->type = EVENT_PATH;
				event->root = verdict->root;
				event->file_id = verdict->file_id;
				event->inode_number = verdict->inode_number;
				event->fingerprint_index = index;
				event->length = length;
				if (length > PATH_BUFFER_BYTES)
					break;
				if (bpf_ringbuf_output(&events, event, offsetof(struct path_event, names) + length,
						       BPF_RB_NO_WAKEUP))
					break;
				*known = verdict->file_id;
				return 0;
			}
		}
		dentry = parent;
	}
	{
		struct tally *tally = tally_here();

		if (tally)
			tally->lost_paths++;
	}
	return 0;
}

static __always_inline void remember_unwatched(u32 epoch, const void *file, const struct inode *inode, u32 process)
{
	u32 index = mix(low_half(file)) >> 40 & (UNWATCHED_PER_CPU - 1);
	struct unwatched *entry = bpf_map_lookup_elem(&unwatched, &index);

	if (entry) {
		entry->file = (u64)file;
		entry->inode = (u64)inode;
		entry->process = process;
		entry->epoch = epoch;
	}
}

static __always_inline int is_unwatched(u32 epoch, const void *file, const struct inode *inode, u32 process)
{
	u32 index = mix(low_half(file)) >> 40 & (UNWATCHED_PER_CPU - 1);
	struct unwatched *entry = bpf_map_lookup_elem(&unwatched, &index);

	return entry && entry->file == (u64)file && entry->inode == (u64)inode && entry->process == process &&
	       entry->epoch == epoch;
}

#define S_IFMT 0170000
#define S_IFREG 0100000
#define FMODE_READ 0x1
#define FMODE_WRITE 0x2
#define FMODE_PATH 0x4000

/* Gives the slot to another file: what it held leaves first. */
static __always_inline void slot_claim(struct slot *slot, u32 epoch, u32 index, struct task_struct *task, s32 fd, u64 file,
				       u64 inode, const struct verdict *verdict)
{
	slot_emit(slot);
	slot_begin(slot);
	slot->type = EVENT_SLOT;
	slot->file = file;
	slot->inode = inode;
	slot->file_id = verdict->file_id;
	slot->opened_ns = 0;
	slot->process = task->tgid;
	slot->fd = fd;
	slot->parent = task->real_parent->tgid;
	slot->epoch = epoch;
	slot->root = verdict->root;
	slot->cpu = index / SLOTS_PER_CPU;
	slot->index = index % SLOTS_PER_CPU;
	slot_done(slot);
}

/* Whether files on the inode's device can be watched at all: most are told apart by this alone. */
static __always_inline int may_be_watched(const struct control *control, struct inode *inode)
{
	struct super_block *super_block = FIELD(inode, i_sb);

	return (control->device_bits & bit_of(super_block)) != 0;
}

/*
 * Looks the file up anew and gives it the slot; 0 if nobody watches it. A slot whose verdict was voided by a rename
 * elsewhere keeps what it holds.
 */
static __always_inline int slot_judge(struct slot *slot, const struct control *control, u32 index, struct task_struct *task,
				      s32 way, u64 file, struct inode *inode, struct dentry *dentry)
{
	struct verdict verdict = { .inode_number = FIELD(inode, i_ino) };
	u32 process = task->tgid;

	if (bpf_map_lookup_elem(&skipped, &process) || !find_root(control, dentry, &verdict))
		return 0;
	announce(dentry, &verdict);
	if (slot->file == file && slot->inode == (u64)inode && slot->process == process && slot->fd == way &&
	    slot->file_id == verdict.file_id && slot->root == verdict.root)
		slot->epoch = control->epoch;
	else
		slot_claim(slot, control->epoch, index, task, way, file, (u64)inode, &verdict);
	return 1;
}

static __always_inline int slot_is_of(const struct slot *slot, const struct control *control, u32 process, s32 way, u64 file,
				      const struct inode *inode)
{
	return slot->file == file && slot->inode == (u64)inode && slot->process == process && slot->fd == way &&
	       slot->epoch == control->epoch;
}

/* The slot of this open file on this CPU, or none if nobody watches it. */
static __always_inline struct slot *slot_of(struct task_struct *task, struct file *file, s32 fd)
{
	u32 process = task->tgid;
	u32 index = slot_index(process, fd < 0 ? low_half(file) : (u32)fd);
	struct slot *slot = bpf_map_lookup_elem(&slots, &index);
	struct inode *inode = FIELD(file, f_inode);
	struct control *control = control_here();

	if (!slot || !control)
		return 0;
	if (slot_is_of(slot, control, process, fd, (u64)file, inode))
		return slot;
	if (is_unwatched(control->epoch, file, inode, process))
		return 0;
	if ((FIELD(inode, i_mode) & S_IFMT) == S_IFREG && may_be_watched(control, inode) &&
	    !(FIELD(file, f_mode) & FMODE_PATH) &&
	    slot_judge(slot, control, index, task, fd, (u64)file, inode, FIELD(file, f_path.dentry)))
		return slot;
	remember_unwatched(control->epoch, file, inode, process);
	return 0;
}

/* The slot of this inode on this CPU where no open file is at hand; its name is one of its names. */
static __always_inline struct slot *slot_of_inode(struct task_struct *task, struct inode *inode, s32 way)
{
	u32 process = task->tgid;
	u32 index = slot_index(process, low_half(inode));
	struct slot *slot = bpf_map_lookup_elem(&slots, &index);
	struct control *control = control_here();
	struct hlist_node *alias;

	if (!slot || !control)
		return 0;
	if (slot_is_of(slot, control, process, way, (u64)inode, inode))
		return slot;
	if (!may_be_watched(control, inode) || is_unwatched(control->epoch, inode, inode, process))
		return 0;
	alias = FIELD(inode, i_dentry.first);
	if (!alias)
		return 0;
	if (slot_judge(slot, control, index, task, way, (u64)inode, inode,
		       TYPED(struct dentry, (void *)alias - bpf_core_field_offset(struct dentry, d_u.d_alias))))
		return slot;
	remember_unwatched(control->epoch, inode, inode, process);
	return 0;
}

/* ---- system calls ---- */

static __always_inline struct file *file_of(struct task_struct *task, u32 fd)
{
	struct fdtable *table = task->files->fdt;
	struct file **entry;

	if (fd >= table->max_fds)
		return 0;
	entry = table->fd + fd;
	/* An entry is a pointer to a file; the first member of a kiocb is one too, and has a type. */
	return FIELD(TYPED(struct kiocb, entry), ki_filp);
}

/* Whether the thread that runs here came back from a wait on this CPU. Mostly not, and then no more is asked. */
static __always_inline int has_waited(struct task_struct *task)
{
	struct tally *tally = tally_here();

	return tally && tally->waiter == (u32)task->pid;
}

/* Microseconds that the thread waited in the call that ends now. To divide costs more than to fold a read. */
static __always_inline u32 take_wait(struct task_struct *task, s32 fd, u32 *missed)
{
	u32 thread = task->pid;
	struct tally *tally = tally_here();
	struct wait *wait = bpf_map_lookup_elem(&waits, &thread);
	u32 total_us = 0;

	if (tally)
		tally->waiter = 0;
	if (!wait)
		return 0;
	if (wait->fd == fd) {
		total_us = wait->total_ns / 1000;
		*missed = wait->device;
	}
	bpf_map_delete_elem(&waits, &thread);
	return total_us;
}

static __always_inline s64 user_offset(u64 address)
{
	s64 offset = 0;

	bpf_probe_read_user(&offset, sizeof(offset), (void *)address);
	return offset;
}

static __always_inline void on_read(struct task_struct *task, struct pt_regs *regs, u32 kind, u64 bytes)
{
	s32 fd = kind == CALL_SENDFILE ? ARG2(regs) : ARG1(regs);
	struct file *file = file_of(task, fd);
	struct slot *slot;
	u32 blocked_us = 0, missed = 0;
	s64 end;

	if (!file) {
		struct tally *tally = tally_here();

		if (tally)
			tally->unresolved_calls++;
		return;
	}
	slot = slot_of(task, file, fd);
	if (!slot)
		return;
	if (kind == CALL_PREAD)
		end = ARG4(regs) + bytes;
	else if (kind == CALL_PREADV2 && (s64)ARG4(regs) != -1)
		end = ARG4(regs) + bytes;
	else if (kind == CALL_SENDFILE && ARG3(regs))
		end = user_offset(ARG3(regs));
	else if (kind == CALL_SPLICE && ARG2(regs))
		end = user_offset(ARG2(regs));
	else
		end = FIELD(file, f_pos);
	if (has_waited(task))
		blocked_us = take_wait(task, fd, &missed);
	slot_add(slot, end - bytes, bytes, EXTENT_READ, blocked_us, missed);
}

/* The parts that matter of `struct io_event` and `struct iocb`: together with its callers' a whole one would not fit the stack. */
struct aio_answer {
	u64 request;
	s64 bytes;
};

struct aio_request {
	u16 op;
	u16 priority;
	u32 fd;
};

/*
 * One answer of io_getevents. Which read it was still stands in the request that it points to: the program has
 * not been told yet. Not static, so that the verifier looks at it once and not for each of the calls.
 */
__noinline int aio_done(u64 events, u32 i)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u64 event = events + i * sizeof(struct io_event);
	struct aio_answer answer;
	struct aio_request request;
	struct file *file;
	struct slot *slot;
	s64 offset;

	if (bpf_probe_read_user(&answer, sizeof(answer), (void *)(event + offsetof(struct io_event, obj))))
		return 0;
	if (answer.bytes <= 0 ||
	    bpf_probe_read_user(&request, sizeof(request), (void *)(answer.request + offsetof(struct iocb, aio_lio_opcode))))
		return 0;
	if (request.op != IOCB_CMD_PREAD && request.op != IOCB_CMD_PREADV)
		return 0;
	if (bpf_probe_read_user(&offset, sizeof(offset), (void *)(answer.request + offsetof(struct iocb, aio_offset))))
		return 0;
	file = file_of(task, request.fd);
	if (!file) {
		struct tally *tally = tally_here();

		if (tally)
			tally->unresolved_calls++;
		return 0;
	}
	slot = slot_of(task, file, request.fd);
	if (slot)
		slot_add(slot, offset, answer.bytes, EXTENT_ASYNC, 0, 0);
	return 0;
}

static __always_inline void on_getevents(u64 events, u64 count)
{
	struct tally *tally = tally_here();

	for (u32 i = 0; i < AIO_EVENTS_MAX; i++) {
		if (i >= count)
			return;
		aio_done(events, i);
	}
	if (tally)
		tally->unresolved_calls += count - AIO_EVENTS_MAX;
}

static __always_inline void on_open(struct task_struct *task, s32 fd)
{
	struct file *file = file_of(task, fd);
	struct slot *slot;

	if (!file)
		return;
	slot = slot_of(task, file, fd);
	if (!slot)
		return;
	if (slot->count || slot->flags)
		slot_emit(slot);
	slot_begin(slot);
	slot->opened_ns = bpf_ktime_get_boot_ns();
	slot->calls++;
	slot->flags = SLOT_OPENED | (FIELD(file, f_mode) & FMODE_WRITE ? SLOT_WRITABLE : 0);
	slot_done(slot);
}

/* The descriptor is gone already: the slot alone still knows it. */
static __always_inline void on_close(struct task_struct *task, s32 fd)
{
	u32 process = task->tgid;
	u32 index = slot_index(process, (u32)fd);
	struct slot *slot = bpf_map_lookup_elem(&slots, &index);

	if (!slot || slot->process != process || slot->fd != fd || !slot->file)
		return;
	slot->flags |= SLOT_CLOSED;
	slot_emit(slot);
	slot->file = 0;
}

/* The agent asks: which inode is behind this descriptor of mine, and what time is it on your clock? */
static __always_inline void on_fadvise(struct task_struct *task, u32 fd)
{
	u32 zero = 0;
	struct identity *identity = bpf_map_lookup_elem(&identities, &zero);
	struct file *file;
	struct inode *inode;
	struct super_block *super_block;
	struct dentry *top;

	if ((u32)task->tgid != own_process || !identity)
		return;
	file = file_of(task, fd);
	if (!file)
		return;
	inode = FIELD(file, f_inode);
	super_block = FIELD(inode, i_sb);
	identity->inode = (u64)inode;
	identity->inode_number = FIELD(inode, i_ino);
	identity->super_block = (u64)super_block;
	identity->dev = FIELD(super_block, s_dev);
	top = FIELD(super_block, s_root);
	identity->is_fs_root = FIELD(top, d_inode) == inode;
	identity->now_ns = bpf_ktime_get_boot_ns();
	identity->jiffies = bpf_jiffies64();
	identity->calls++;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long ret)
{
	struct task_struct *task;
	u64 number = CALL_NUMBER(regs);
	u32 kind;

	if (number >= CALLS_MAX)
		return 0;
	kind = call_kinds[number];
	if (kind == CALL_IGNORED)
		return 0;
	task = bpf_get_current_task_btf();
	if (IS_COMPAT(task)) {
		struct tally *tally = tally_here();

		if (tally)
			tally->compat_calls++;
		return 0;
	}
	if (kind <= CALL_SPLICE) {
		if (ret > 0)
			on_read(task, regs, kind, ret);
	} else if (kind == CALL_GETEVENTS) {
		if (ret > 0)
			on_getevents(ARG4(regs), ret);
	} else if (kind == CALL_OPEN) {
		if (ret >= 0)
			on_open(task, ret);
	} else if (kind == CALL_CLOSE) {
		on_close(task, ARG1(regs));
	} else if (kind == CALL_RENAME) {
		struct control *control = control_here();

		if (ret == 0 && control)
			__sync_fetch_and_add(&control->epoch, 1);
	} else if (kind == CALL_FADVISE) {
		on_fadvise(task, ARG1(regs));
	}
	return 0;
}

/* ---- mapped files ---- */

static __always_inline int on_fault(struct inode *inode, u64 first_page, u64 last_page)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct slot *slot = slot_of_inode(task, inode, WAY_MAPPED);
	struct tally *tally;

	if (!slot)
		return 0;
	slot_add(slot, first_page << page_shift, (last_page - first_page + 1) << page_shift, EXTENT_FAULT, 0, 0);
	tally = tally_here();
	if (tally) {
		tally->fault_process = task->pid;
		tally->fault_file_id = slot->file_id;
		tally->fault_offset = first_page << page_shift;
	}
	return 0;
}

SEC("tp_btf/mm_filemap_fault")
int BPF_PROG(fault, struct address_space *mapping, unsigned long page)
{
	return on_fault(mapping->host, page, page);
}

SEC("tp_btf/mm_filemap_map_pages")
int BPF_PROG(map_pages, struct address_space *mapping, unsigned long first_page, unsigned long last_page)
{
	return on_fault(mapping->host, first_page, last_page);
}

/* For kernels without those tracepoints (6.1), where functions may be hooked. */
SEC("fentry/filemap_fault")
int BPF_PROG(fault_entry, struct vm_fault *fault)
{
	return on_fault(fault->vma->vm_file->f_inode, fault->pgoff, fault->pgoff);
}

SEC("fentry/filemap_map_pages")
int BPF_PROG(map_pages_entry, struct vm_fault *fault, unsigned long first_page, unsigned long last_page)
{
	return on_fault(fault->vma->vm_file->f_inode, first_page, last_page);
}

/* ---- waiting ---- */

#define PF_KTHREAD 0x00200000

/* Whether a device is waited for. A bit whose place differs from kernel to kernel: a plain load would take another one. */
static __always_inline u32 in_iowait(struct task_struct *task)
{
	return BPF_CORE_READ_BITFIELD(task, in_iowait);
}

/* The descriptor that the thread is reading from, -1 if it is in no read. */
static __always_inline s32 reading_from(struct task_struct *task)
{
	struct pt_regs *regs;
	u64 number;
	u32 kind;

	if (task->flags & PF_KTHREAD)
		return -1;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	number = CALL_NUMBER(regs);
	if (number >= CALLS_MAX)
		return -1;
	kind = call_kinds[number];
	if (kind == CALL_IGNORED || kind > CALL_SPLICE)
		return -1;
	return kind == CALL_SENDFILE ? ARG2(regs) : ARG1(regs);
}

static __always_inline void wait_began(struct task_struct *task)
{
	u32 thread = task->pid, process = task->tgid, index;
	s32 fd = reading_from(task);
	struct tally *tally = tally_here();
	struct wait *wait, fresh = {};
	struct slot *slot;

	if (fd < 0) {
		/* Not in a read: only a fault on a watched mapping counts, and only if a device is waited for. */
		if (!in_iowait(task) || !tally || tally->fault_process != thread)
			return;
		fresh.fault_file_id = tally->fault_file_id;
		fresh.fault_offset = tally->fault_offset;
	} else if (!in_iowait(task)) {
		/* Pipes and sockets wait as well: take a wait without a device only on a file known to be watched. */
		index = slot_index(process, (u32)fd);
		slot = bpf_map_lookup_elem(&slots, &index);
		if (!slot || slot->process != process || slot->fd != fd)
			return;
	}
	wait = bpf_map_lookup_elem(&waits, &thread);
	if (wait && wait->fd == fd) {
		wait->since_ns = bpf_ktime_get_ns();
		wait->device |= in_iowait(task);
		return;
	}
	fresh.fd = fd;
	fresh.since_ns = bpf_ktime_get_ns();
	fresh.device = in_iowait(task);
	bpf_map_update_elem(&waits, &thread, &fresh, BPF_ANY);
}

static __always_inline void wait_ended(struct task_struct *task)
{
	u32 thread = task->pid;
	s32 fd = reading_from(task);
	struct tally *tally;
	struct wait *wait;

	if (fd < 0 && !in_iowait(task))
		return;
	wait = bpf_map_lookup_elem(&waits, &thread);
	if (!wait)
		return;
	if (wait->since_ns) {
		wait->total_ns += bpf_ktime_get_ns() - wait->since_ns;
		wait->since_ns = 0;
	}
	if (fd < 0) {
		struct fault_wait_event event = {
			.type = EVENT_FAULT_WAIT,
			.process = task->tgid,
			.file_id = wait->fault_file_id,
			.waited_ns = wait->total_ns,
			.offset = wait->fault_offset,
		};

		bpf_map_delete_elem(&waits, &thread);
		if (event.file_id)
			bpf_ringbuf_output(&events, &event, sizeof(event), BPF_RB_NO_WAKEUP);
		return;
	}
	tally = tally_here();
	if (tally)
		tally->waiter = thread;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, _Bool preempted, struct task_struct *prev, struct task_struct *next)
{
	if (!preempted)
		wait_began(prev);
	wait_ended(next);
	return 0;
}

/* ---- processes ---- */

static __always_inline int process_emit(struct process_event *event, u64 bytes)
{
	if (bpf_ringbuf_output(&events, event, bytes, BPF_RB_NO_WAKEUP)) {
		struct tally *tally = tally_here();

		if (tally)
			tally->lost_process_events++;
	}
	return 0;
}

static __always_inline void process_fill(struct process_event *event, u32 type, struct task_struct *task)
{
	event->type = type;
	event->process = task->tgid;
	event->parent = task->real_parent->tgid;
	event->argv_length = 0;
	event->group_length = 0;
	event->at_ns = bpf_ktime_get_boot_ns();
	event->started_ns = task->group_leader->start_boottime;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	u32 zero = 0;
	struct process_event *event = bpf_map_lookup_elem(&process_scratch, &zero);

	if (!event || child->pid != child->tgid)
		return 0;
	event->type = EVENT_FORK;
	event->process = child->tgid;
	event->parent = parent->tgid;
	event->argv_length = 0;
	event->group_length = 0;
	event->at_ns = bpf_ktime_get_boot_ns();
	event->started_ns = child->start_boottime;
	return process_emit(event, offsetof(struct process_event, filename));
}

/*
 * The group that says most of where a task belongs: with one hierarchy its group there, with a hierarchy for each
 * controller the deepest.
 */
static __always_inline struct cgroup *innermost_group(struct task_struct *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup *innermost = BPF_CORE_READ(set, dfl_cgrp);
	int level = BPF_CORE_READ(innermost, level);
	u32 kinds = bpf_core_field_size(set->subsys) / sizeof(void *), kind;

	for (kind = 0; kind < GROUP_KINDS_MAX && kind < kinds; kind++) {
		struct cgroup_subsys_state *state;
		struct cgroup *group;

		if (bpf_probe_read_kernel(&state, sizeof(state), (void *)&set->subsys + kind * sizeof(state)) || !state)
			continue;
		group = BPF_CORE_READ(state, cgroup);
		if (BPF_CORE_READ(group, level) > level) {
			innermost = group;
			level = BPF_CORE_READ(group, level);
		}
	}
	return innermost;
}

static __always_inline struct kernfs_node *node_above(struct kernfs_node *node)
{
	struct kernfs_node___of_old *old = (void *)node;

	if (bpf_core_field_exists(node->__parent))
		return BPF_CORE_READ(node, __parent);
	return BPF_CORE_READ(old, parent);
}

/* Names from the innermost group up, each with its NUL, behind the first `at` bytes of `words`; returns their length. */
static __always_inline u32 group_names(struct task_struct *task, u8 *words, u32 at)
{
	struct kernfs_node *node = BPF_CORE_READ(innermost_group(task), kn), *above;
	u32 end = at, depth;

	for (depth = 0; depth < GROUP_DEPTH_MAX; depth++) {
		long bytes;

		above = node_above(node);
		if (!above || end > ARGV_BYTES + GROUP_BYTES)
			break;
		bytes = bpf_probe_read_kernel_str(words + end, NAME_BYTES, BPF_CORE_READ(node, name));
		if (bytes <= 0)
			break;
		end += bytes;
		node = above;
	}
	return end - at;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	u32 zero = 0;
	struct process_event *event = bpf_map_lookup_elem(&process_scratch, &zero);
	u64 start, length;

	if (!event)
		return 0;
	process_fill(event, EVENT_EXEC, task);
	/* Of a script its interpreter, as /proc/PID/exe has it too. */
	bpf_probe_read_kernel_str(event->filename, FILENAME_BYTES, bprm->interp);
	start = task->mm->arg_start;
	length = task->mm->arg_end - start;
	if (length > ARGV_BYTES)
		length = ARGV_BYTES;
	if (bpf_probe_read_user(event->words, length, (void *)start))
		length = 0;
	event->argv_length = length;
	/* Told here and not looked up: who is gone when the event is read has no /proc/PID/cgroup. */
	event->group_length = group_names(task, event->words, length);
	length += event->group_length;
	if (length > sizeof(event->words))
		length = sizeof(event->words);
	return process_emit(event, offsetof(struct process_event, words) + length);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	u32 zero = 0;
	struct process_event *event = bpf_map_lookup_elem(&process_scratch, &zero);

	if (!event || task->signal->live.counter)
		return 0;
	process_fill(event, EVENT_EXIT, task);
	return process_emit(event, offsetof(struct process_event, filename));
}

/* ---- io_uring ---- */

#define IORING_OP_READV 1
#define IORING_OP_READ_FIXED 4
#define IORING_OP_READ 22
#define IORING_OP_READV_FIXED 60

static __always_inline int on_uring(void *request, s32 bytes)
{
	struct io_kiocb *req = TYPED(struct io_kiocb, request);
	struct slot *slot;
	u8 op = FIELD(req, opcode);
	s64 end;

	if (op != IORING_OP_READ && op != IORING_OP_READV && op != IORING_OP_READ_FIXED && op != IORING_OP_READV_FIXED)
		return 0;
	if (bytes <= 0)
		return 0;
	slot = slot_of(bpf_get_current_task_btf(), FIELD(req, file), WAY_URING);
	if (!slot)
		return 0;
	end = FIELD(TYPED(struct io_rw, request), kiocb.ki_pos);
	slot_add(slot, end - bytes, bytes, EXTENT_ASYNC, 0, 0);
	return 0;
}

SEC("tp_btf/io_uring_complete")
int BPF_PROG(uring_complete, void *ring, void *request, struct io_uring_cqe *cqe)
{
	return on_uring(request, cqe->res);
}

/* The tracepoint of older kernels has the same name and other arguments. */
SEC("tp_btf/io_uring_complete")
int BPF_PROG(uring_complete_result, void *ring, void *request, u64 user_data, int result)
{
	return on_uring(request, result);
}

/* ---- the light tier ---- */

/*
 * One read comes here once for each batch of folios, with the same last page: what is left of it is no second read.
 * Nor is a read that begins in the page where the last one ended.
 */
SEC("tp_btf/mm_filemap_get_pages")
int BPF_PROG(pages, struct address_space *mapping, unsigned long first_page, unsigned long last_page)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct inode *inode = mapping->host;
	struct slot *slot = slot_of_inode(task, inode, WAY_PAGES);
	u64 offset = first_page << page_shift, end = (last_page + 1) << page_shift, size;
	u32 count, blocked_us = 0, missed = 0;

	if (!slot)
		return 0;
	size = inode->i_size;
	if (end > size)
		end = size;
	if (offset >= end)
		return 0;
	if (has_waited(task))
		blocked_us = take_wait(task, reading_from(task), &missed);
	count = slot->count;
	if (count && count <= EXTENTS_MAX) {
		struct extent *last = &slot->extents[(count - 1) % EXTENTS_MAX];
		u64 told = last->offset + last->length;

		if (offset > last->offset && offset <= told && end >= told) {
			slot_begin(slot);
			if (end > told) {
				last->length = end - last->offset;
				last->calls++;
				slot->calls++;
			}
			last->blocked_us += blocked_us;
			last->missed |= missed;
			slot_done(slot);
			return 0;
		}
	}
	slot_add(slot, offset, end - offset, EXTENT_PAGES, blocked_us, missed);
	return 0;
}
