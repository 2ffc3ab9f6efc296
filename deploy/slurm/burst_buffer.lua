--[[
Stages a job's data before it starts: place this beside slurm.conf, with burst_buffer.conf, and run `foretide slurm` on the
host of slurmctld. A job asks with lines of its batch script:

    #BB_LUA warm=imagenet:train within_s=3600
    #BB_LUA workload=w-1a2b

Script and daemon meet in a folder (FORETIDE_SLURM_SPOOL, else /run/foretide/slurm). Nothing here touches the network.
slurm_bb_job_process, _pools and _paths run inside slurmctld under its locks and only read; slurm_bb_data_in runs in a
process of its own and waits there until the daemon says `go`, or the job's patience (`patience_s`, else 600) ends. It
never fails a job: what is not there is read over the link.
]]

local spool = os.getenv("FORETIDE_SLURM_SPOOL") or "/run/foretide/slurm"
local PATIENCE_S = tonumber(os.getenv("FORETIDE_SLURM_PATIENCE_S") or "") or 600
local DIRECTIVE = "#BB_LUA"
local KEYS = { warm = true, workload = true, site = true, within_s = true, fraction = true, label = true }

local function read(path)
	local file = io.open(path, "r")
	if not file then
		return nil
	end
	local text = file:read("*a")
	file:close()
	return text
end

-- Beside its place, then renamed: nobody reads half a file.
local function write(path, text)
	local partial = path .. ".partial"
	local file, why = io.open(partial, "w")
	if not file then
		return nil, why
	end
	file:write(text)
	file:close()
	return os.rename(partial, path)
end

-- What a script asks for: lines of key=value, and the patience. An error names the word.
local function wanted(script)
	local lines, patience = {}, PATIENCE_S
	for line in (script .. "\n"):gmatch("(.-)\r?\n") do
		local words = line:match("^" .. DIRECTIVE .. "%s+(.*)$")
		for word in (words or ""):gmatch("%S+") do
			local key, value = word:match("^(%w[%w_]*)=(.+)$")
			if key == "patience_s" and tonumber(value) then
				patience = tonumber(value)
			elseif key and KEYS[key] then
				lines[#lines + 1] = key .. "=" .. value
			else
				return nil, patience, "foretide: '" .. word .. "' is not understood; use warm=VOLUME:PATH, workload=, site=, within_s=, fraction=, label=, patience_s="
			end
		end
	end
	return lines, patience
end

function slurm_bb_job_process(job_script, uid, gid)
	local _, _, why = wanted(read(job_script) or "")
	if why then
		return slurm.ERROR, why
	end
	return slurm.SUCCESS
end

function slurm_bb_pools()
	return slurm.SUCCESS
end

function slurm_bb_setup(job_id, uid, gid, pool, bb_size, job_script)
	return slurm.SUCCESS
end

function slurm_bb_data_in(job_id, job_script, uid, gid)
	local lines, patience = wanted(read(job_script) or "")
	if not lines or #lines == 0 then
		return slurm.SUCCESS
	end
	local written, why = write(spool .. "/wants/" .. job_id, table.concat(lines, "\n") .. "\n")
	if not written then
		slurm.log_info("foretide: job %s runs cold: %s", job_id, tostring(why))
		return slurm.SUCCESS, "foretide: runs cold, the spool cannot be written"
	end
	local until_s = os.time() + patience
	while os.time() < until_s do
		local go, said = (read(spool .. "/answers/" .. job_id) or ""):match("^(%w+)\n(.-)\n")
		if go == "go" then
			slurm.log_info("foretide: job %s: %s", job_id, said)
			return slurm.SUCCESS, "foretide: " .. said
		end
		os.execute("sleep 1")
	end
	slurm.log_info("foretide: job %s runs cold: nobody said go within %d s", job_id, patience)
	return slurm.SUCCESS, "foretide: runs cold"
end

function slurm_bb_real_size(job_id, uid, gid)
	return slurm.SUCCESS
end

function slurm_bb_paths(job_id, job_script, path_file, uid, gid)
	return slurm.SUCCESS
end

function slurm_bb_pre_run(job_id, job_script, uid, gid)
	return slurm.SUCCESS
end

function slurm_bb_post_run(job_id, job_script, uid, gid)
	return slurm.SUCCESS
end

function slurm_bb_data_out(job_id, job_script, uid, gid)
	return slurm.SUCCESS
end

function slurm_bb_job_teardown(job_id, job_script, hurry, uid, gid)
	if read(spool .. "/wants/" .. job_id) then
		write(spool .. "/ended/" .. job_id, "")
	end
	return slurm.SUCCESS
end

-- `scontrol show bbstat` tells what jobs were answered.
function slurm_bb_get_status(uid, gid, ...)
	local said = {}
	for _, job_id in ipairs({ ... }) do
		if job_id:match("^%d+$") then
			said[#said + 1] = job_id .. ": " .. (read(spool .. "/answers/" .. job_id) or "no answer yet\n"):gsub("\n", " ")
		end
	end
	return slurm.SUCCESS, table.concat(said, "\n") .. "\n"
end
